"""Data preparation for lorascale: pictures and their captions in, captioned image files (HDF5) out. See
scripts/prepare_images.py. What it shares with pictures of classes is imported from lorascale_images.

captioning     the command line: options, and all of it in order
layouts        which pictures there are and with which captions
metadata       captions in metadata.csv and metadata.jsonl
sidecars       captions in files beside the pictures, and folders N_class
texts          the encoding of captions
vocabulary     CLIP's vocabulary from the files in which it is passed on
tokenizing     captions to tokens
tags           what commas part in captions
buckets        the sizes that pictures become
colours        colour profiles and transparency
pixels         a picture's file to what is stored of it
store          the prepared pictures, on disk until it is known which of them are kept
making         pictures to files
captioned_file the HDF5 layout
sheet          a contact sheet
summary        what became of the pictures
"""
