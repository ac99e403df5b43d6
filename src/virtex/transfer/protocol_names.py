"""Names of the protocols of `virtex transfer`, and what each measures; for help without torch."""

TRAINED = (
    "imagenet", "inaturalist", "finetune", "coco-segmentation", "lvis-segmentation",
    "voc-detection",
)  # fmt: skip
"""Protocols that train, in several processes by default."""

ABOUT: dict[str, str] = {
    "voc07": (
        "PASCAL VOC 2007 classification: an SVM for each class on frozen features, mean average "
        "precision. Needs --data.root VOCdevkit (VOC2007: JPEGImages, ImageSets/Main), trainval "
        "and test unless --data.train_split and --data.val_split name others. Any source with "
        "several labels an image works: coco, lvis, scenes. Variant: --config voc07_8192 --layer "
        "stage4 (VirTex before v1.0, stages compared)."
    ),
    "linear": (
        "A linear classifier, and nearest neighbours, on features that are computed once. Needs "
        "images of one class each: --data.root DIR with train/<class>/* and val/<class>/*, or one"
        " set of class folders and --data.val_share 0.2; --data.source inaturalist works too."
    ),
    "imagenet": (
        "ImageNet-1k linear classification: a layer trained on the frozen backbone with random "
        "crops, 100 epochs. Needs --data.root DIR with train/<class>/* and val/<class>/*. "
        "Variants: --config imagenet_moco (lr 30), --config imagenet_multistep (VirTex before "
        "v1.0); --labels 0.01 or --shots 5 trains on few labels."
    ),
    "inaturalist": (
        "iNaturalist 2018: the whole network fine-tuned, 100 epochs. Needs --data.root DIR with "
        "train2018.json, val2018.json and train_val2018/."
    ),
    "finetune": (
        "The whole network fine-tuned as on iNaturalist, on any class folder. Needs --data.root "
        "DIR with train/<class>/* and val/<class>/*, or --data.val_share 0.2."
    ),
    "coco-segmentation": (
        "COCO instance segmentation: Mask R-CNN on a feature pyramid fine-tuned for 180,000 "
        "steps, AP of masks and boxes. Needs --data.root DIR with train2017/, val2017/ and "
        "annotations/instances_{train,val}2017.json. --config coco_segmentation_1x takes half the"
        " steps. --evaluate_only tests a finished detector again."
    ),
    "lvis-segmentation": (
        "LVIS v1 instance segmentation: as COCO, rare classes repeated, 300 detections, AP by "
        "frequency. Needs --data.root DIR with COCO's train2017/ and val2017/ and "
        "annotations/lvis_v1_{train,val}.json. From ImageNet's weights: --config "
        "lvis_segmentation_imagenet. --evaluate_only tests a finished detector again."
    ),
    "voc-detection": (
        "PASCAL VOC detection, trained on 07+12 trainval, tested on 07 test: Faster R-CNN C4 "
        "fine-tuned for 24,000 steps. Needs --data.root VOCdevkit with VOC2007 and VOC2012; other"
        " splits by --data.train_split and --data.val_split. --evaluate_only tests a finished "
        "detector again."
    ),
    "captioning": (
        "Captions of the validation images by the run itself, beam 5, scored by CIDEr-D, BLEU and"
        " ROUGE-L; with Java and pycocoevalcap --metrics takes meteor and spice as well. Needs "
        "a run that learned to write, and --data.root DIR with val2017/ and "
        "annotations/captions_val2017.json, or any other caption source with a validation split. "
        "--blind scores it against other images too."
    ),
    "zero-shot": (
        "Classification without training: the class whose name fits an image best, by a "
        "captioner's likelihood or a contrastively trained run's cosine similarity; top-1 and "
        "top-5 accuracy. Needs images of one class each: --data.root DIR with val/<class>/*, or "
        "with <class>/* alone. --class_names FILE says what to call the classes."
    ),
    "retrieval": (
        "Which caption belongs to an image and which image to a caption, by a captioner's "
        "likelihood or a contrastively trained run's cosine similarity; recall at 1, 5 and 10 "
        "both ways. Needs --data.root DIR with val2017/ and annotations/captions_val2017.json, or"
        " any other caption source with a validation split. A captioner reads every caption for "
        "every image: --captions_per_image 1 and --num_images 1000 take less time."
    ),
}
