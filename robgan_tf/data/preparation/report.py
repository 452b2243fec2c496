"""What is told of a finished preparation."""

from __future__ import annotations

from robgan_tf.data.names import some
from robgan_tf.data.preparation.sources import TRAIN
from robgan_tf.data.preparation.writing import VALIDATION
from robgan_tf.data.sources.dataset_manifest import DatasetManifest

SNGAN_EXAMPLES = 180373  # of the training split, in SN-GAN's preparation of ImageNet-143


def report(manifest: DatasetManifest) -> str:
    """Returns a table of the splits, and what is to be known of them."""
    lines = [f"{'split':<12}{'images':>10}{'per class':>14}{'shards':>8}{'MiB':>9}{'too small':>11}{'corrupt':>9}"]
    for name, split in manifest.splits.items():
        per_class = f"{min(split.class_counts)}..{max(split.class_counts)}"
        mebibytes = sum(shard.bytes for shard in split.shards) / 2**20
        lines.append(
            f"{name:<12}{split.examples:>10}{per_class:>14}{len(split.shards):>8}{mebibytes:>9.1f}"
            f"{split.too_small:>11}{len(split.corrupt):>9}"
        )
    lines.append(f"{len(manifest.class_names)} classes, {manifest.image_size} px")
    corrupt = [name for split in manifest.splits.values() for name in split.corrupt]
    if corrupt:
        lines.append(f"left out, as they can't be decoded: {some(corrupt)} (all of them are in the manifest)")
    if manifest.duplicates:
        pairs = some([" = ".join(pair) for pair in manifest.duplicates])
        lines.append(f"the same file stands in two splits {len(manifest.duplicates)} times: {pairs}")
    return "\n".join(lines)


def compared_with_sngan(manifest: DatasetManifest) -> str:
    """Returns how the number of training images compares with SN-GAN's preparation of the same classes."""
    count = sum(manifest.splits[split].examples for split in (TRAIN, VALIDATION) if split in manifest.splits)
    difference = f"{count - SNGAN_EXAMPLES:+}" if count != SNGAN_EXAMPLES else "the same"
    return f"train and validation: {count} images; SN-GAN's preparation has {SNGAN_EXAMPLES} ({difference})"
