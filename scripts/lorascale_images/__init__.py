"""Data preparation for lorascale: pictures and their classes in, image files (HDF5) out. See
scripts/prepare_images.py. What it shares with text is imported from lorascale_data; pictures with captions are
lorascale_captions.

listing        which pictures there are and of which class: folders, tables
decoding       a picture's file to pixels of the size and channels that are asked for
scratch        the decoded pictures, on disk until it is known which of them are kept
choosing       duplicates, contradictions, and which picture is on which side
image_file     the HDF5 layout
making         all of it in order
command        what the command line of both kinds of image files shares
summary        what became of the pictures
"""
