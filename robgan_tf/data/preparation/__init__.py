"""Images of a folder or a TFDS set written as records, once, for many runs.

sources     where images come from, listed without decoding
classes     which classes, and what they are called
writing     settings, splits, what is written where; and the check of a finished folder
shards      the files: worker processes encode, one process writes, a stop costs one shard
report      what is told of the result

`python -m robgan_tf.prepare` is the command. Worker processes import all of it, so none of it imports TensorFlow at
its top.
"""
