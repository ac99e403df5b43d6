"""Ids of the special tokens, as the released vocabulary lays them out.

Padding shares id 0 with the unknown token; the four ids hold for every tokenizer of this package.
"""

PAD_ID = 0
UNK_ID = 0
SOS_ID = 1
EOS_ID = 2
MASK_ID = 3
NUM_SPECIAL = 4
