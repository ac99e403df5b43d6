"""Ids of the special tokens of every tokenizer, as in the released vocabulary.

Padding has the same id as the unknown token.
"""

PAD_ID = 0
UNK_ID = 0
SOS_ID = 1
EOS_ID = 2
MASK_ID = 3
NUM_SPECIAL = 4
