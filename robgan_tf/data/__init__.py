"""Labelled images and the batches made of them.

datasets        Examples and ImageData, what a source gives
tfds_images     sources: any TFDS set by name, and the embedded digits (their builder is in `digits`)
image_folder    source: a folder of images
batches         training batches, a function of (seed, step) alone, and evaluation batches
preprocessing   augmentations and pixel scales

Import the modules, not names from here: `tfds_images.digits` (a function) and `digits` (a module) would collide.
"""
