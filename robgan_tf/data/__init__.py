"""Labelled images and the batches made of them.

datasets        ImageData, what a source gives, and its splits: TrainingSplit, and Examples in memory
tfds_images     sources: any TFDS set by name, and the embedded digits (their builder is in `digits`)
image_folder    source: a folder of images (`class_folders`), in memory or decoded in each pass (`image_files`)
records         source: prepared TFRecords and their `dataset_manifest`, read as a stream (`record_stream`)
batches         training batches, a function of (seed, step) alone, and evaluation batches
decoding        JPEG and PNG by TensorFlow alone, to the pixels that Pillow gives
description     what a run keeps of its data, and what differs
preparation     images of a folder or a TFDS set written as records
order           random numbers and permutations as functions of (seed, step)
preprocessing   augmentations and pixel scales

Import the modules, not names from here: `tfds_images.digits` (a function) and `digits` (a module) would collide.
"""
