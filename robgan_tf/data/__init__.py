"""Images and labels: reading them from disk, and turning them into batches.

    datasets        ImageData and its sources tfds_images, image_folder, digits; training and evaluation batches
    preprocessing   augmentations and the two pixel scales
    digits          the data set builder behind datasets.digits

Import the modules, not names from here: `datasets.digits` (a function) and `digits` (a module) would collide.
"""
