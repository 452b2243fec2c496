"""The whole evaluation of a small generator: extractors that fit or do not, files of images, what the report says."""

import json

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.generation import extractors
from robgan_tf.generation.classifier_training import ClassifierTraining
from robgan_tf.generation.evaluation import GenerationEvaluation
from robgan_tf.generation.extractors import classifier_extractor, inception
from robgan_tf.generation.image_sources import SampledImages, StoredImages, images_of_file
from robgan_tf.generation.training_scores import TrainingScores
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.serving.saved_model import export_classifier


def save(folder, function, size=299, channels=3):
    """Saves `function` as a callable SavedModel of the standard Inception's interface."""
    module = tf.Module()
    module.__call__ = tf.function(function, input_signature=[tf.TensorSpec([None, size, size, channels], tf.float32)])
    tf.saved_model.save(module, str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def inception_dir(tmp_path_factory):
    def network(images):
        pooled = tf.nn.avg_pool2d(images, 100, 100, "SAME")[:, :, :, :1]
        features = tf.reshape(pooled, [-1, 9])
        return {"pool_3": features[:, None, None], "logits": tf.pad(features, [[0, 0], [0, 3]])}

    return save(tmp_path_factory.mktemp("inception"), network)


@pytest.fixture
def new_classifier(make_discriminator):
    return lambda: ClassBranch(make_discriminator(10, (8, 8, 1), spectral_norm=False))


@pytest.fixture
def export(new_classifier, digits, tmp_path):
    """The folder of an untrained classifier's export."""
    network = new_classifier()
    return export_classifier(
        lambda images: network(images, training=False),
        network.weights,
        image_shape=(8, 8, 1),
        class_names=digits.class_names,
        export_root=str(tmp_path / "export"),
        check_images=digits.test.images[:4],
        features_fn=network.features_and_logits,
    )


@pytest.fixture
def evaluation():
    def make(**options):
        training = lambda: ClassifierTraining(updates=500, batch_size=32, learning_rate=5e-3)  # noqa: E731
        options = {"inception": None, "extractor_training": training, "accuracy_training": None, **options}
        return GenerationEvaluation(samples=400, subset=200, batch_size=100, similarity_images=0, **options)

    return make


# ---------------------------------------------------------------------------------------------------- extractors


def test_features_of_an_export_are_what_the_class_head_is_given(export, digits):
    loaded = tf.saved_model.load(export)
    features, logits = classifier_extractor(export)(digits.test.images[:5])
    images = tf.constant(digits.test.images[:5] / np.float32(127.5) - 1)
    np.testing.assert_allclose(logits, loaded.logits(images), rtol=1e-5, atol=1e-5)
    # Logits are linear in them: a fit leaves nothing.
    features, logits = classifier_extractor(export)(digits.test.images)
    inputs = np.column_stack([features, np.ones(len(features))])
    fitted = inputs @ np.linalg.lstsq(inputs, logits, rcond=None)[0]
    np.testing.assert_allclose(fitted, logits, atol=1e-4)


def test_a_run_stands_for_its_newest_export(export, digits, tmp_path):
    extractor = classifier_extractor(str(tmp_path))
    assert extractor.name == f"classifier in {export}" and extractor.checksum == extractors.checksum(export)
    assert extractor.check(digits, 100, 0) == 8
    assert extractor.score_names["frechet"] == "frechet_classifier_distance"


def test_inception_takes_images_of_any_size_and_gray_ones(inception_dir, digits, monkeypatch):
    monkeypatch.setenv("ROBGAN_INCEPTION", inception_dir)
    extractor = inception()
    features, logits = extractor(digits.test.images[:4])
    assert features.shape == (4, 9) and logits.shape == (4, 12)
    resized = tf.image.resize(digits.test.images[:4] / np.float32(127.5) - 1, [299, 299])
    np.testing.assert_allclose(
        features, np.reshape(tf.nn.avg_pool2d(resized, 100, 100, "SAME"), [4, 9]), rtol=1e-4, atol=1e-5
    )
    assert extractor.score_names["frechet"] == "frechet_inception_distance"


def test_wrong_models_are_no_inception(export, tmp_path):
    with pytest.raises(ValueError, match=r"does not take float images \[N, 299, 299, 3\]"):
        inception(export)
    other = save(tmp_path / "other", lambda images: {"logits": images[:, 0, 0], "pool": images[:, 0, 0]})
    with pytest.raises(ValueError, match="has the outputs logits, pool; .* with logits and pool_3"):
        inception(other)
    with pytest.raises(ValueError, match="has no saved_model.pb"):
        inception(str(tmp_path / "nothing"))


def test_an_export_without_features_is_refused(digits, tmp_path):
    weight = tf.Variable(tf.random.normal([64, 10]))
    directory = export_classifier(
        lambda images: tf.reshape(images, [-1, 64]) @ weight,
        [weight],
        image_shape=(8, 8, 1),
        class_names=digits.class_names,
        export_root=str(tmp_path / "export"),
        check_images=digits.test.images[:4],
    )
    with pytest.raises(ValueError, match="has no function `features`: export the run anew"):
        classifier_extractor(directory)


def test_an_extractor_of_another_size_or_scale_is_refused(digits, honest):
    def network(scale):
        return lambda images: (images[:, 0, 0], honest(tf.clip_by_value(scale(images), -1, 1)))

    small = extractors.Extractor(network(lambda images: images), "small", "", (16, 16, 1))
    with pytest.raises(ValueError, match=r"small takes images of \(16, 16, 1\), small digits has \(8, 8, 1\)"):
        small.check(digits, 100, 0)
    bytes_ = extractors.Extractor(network(lambda images: images / 127.5 - 1), "bytes", "", (8, 8, 1))
    with pytest.raises(ValueError, match=r"extractor bytes: .* on \[0, 255\]: it was made for that one"):
        bytes_.check(digits, 100, 0)
    broken = extractors.Extractor(lambda images: (images[:, 0, 0] / 0.0, images[:, 0, 0]), "broken", "")
    with pytest.raises(ValueError, match="broken gives features or logits that are not finite"):
        broken.check(digits, 100, 0)


# -------------------------------------------------------------------------------------------------------- images


def test_generated_images_are_a_function_of_the_seed_with_all_classes_in_turn(make_generator):
    generator = make_generator()
    images, labels = zip(*SampledImages(generator, 3).batches(20, 8))
    again, _ = zip(*SampledImages(generator, 3).batches(20, 8))
    others, _ = zip(*SampledImages(generator, 4).batches(20, 8))
    images, again, others = map(np.concatenate, (images, again, others))
    assert images.dtype == np.uint8 and images.shape == (20, 8, 8, 3)
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(20) % 3)
    np.testing.assert_array_equal(images, again)
    assert (images != others).any() and len(np.unique(images, axis=0)) == 20


def test_stored_images_come_once_each(digits):
    source = StoredImages(digits.test, 0, {})
    images, labels = map(np.concatenate, zip(*source.batches(500, 64)))
    rows = sorted(map(bytes, np.column_stack([images.reshape(500, -1), labels.astype(np.uint8)])))
    expected = np.column_stack([digits.test.images.reshape(500, -1), digits.test.labels.astype(np.uint8)])
    assert rows == sorted(map(bytes, expected))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros([4, 8, 8, 1], np.uint8)}, "has no labels"),
        ({"images": np.zeros([4, 8, 8, 1], np.float32), "labels": np.zeros(4, int)}, "got float32"),
        (
            {"images": np.zeros([4, 9, 9, 1], np.uint8), "labels": np.zeros(4, int)},
            r"of shape \(9, 9, 1\), those of .* \(8, 8, 1\)",
        ),
        (
            {"images": np.zeros([4, 8, 8, 1], np.uint8), "labels": np.zeros(3, int)},
            "labels must be integers of shape \\[4\\]",
        ),
        ({"images": np.zeros([4, 8, 8, 1], np.uint8), "labels": np.full(4, 10)}, "are from 10 to 10, .* 0 to 9"),
    ],
)
def test_wrong_files_of_images_are_refused(digits, tmp_path, arrays, message):
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        images_of_file(str(tmp_path / "images.npz"), digits, 0)


# ---------------------------------------------------------------------------------------------------- evaluation


def test_real_images_score_better_than_collapsed_ones_by_a_classifier_trained_for_it(
    evaluation, digits, new_classifier, tmp_path
):
    measure = evaluation(accuracy_training=lambda: ClassifierTraining(updates=60, batch_size=32, learning_rate=5e-3))
    rows = np.arange(400)
    np.savez(tmp_path / "real.npz", images=digits.test.images[:400], labels=digits.test.labels[:400])
    firsts = np.array([np.flatnonzero(digits.test.labels == label)[0] for label in range(10)])
    np.savez(tmp_path / "collapsed.npz", images=digits.test.images[firsts[rows % 10]], labels=rows % 10)
    found = {}
    for name in ("real", "collapsed"):
        images = images_of_file(str(tmp_path / f"{name}.npz"), digits, 0)
        report = measure(images, digits, new_classifier, tmp_path / "kept")
        json.dumps(report, allow_nan=False)
        (block,) = report["extractors"]
        found[name] = block["generated"], report["classification_accuracy"]
    (real, real_accuracy), (collapsed, collapsed_accuracy) = found["real"], found["collapsed"]
    assert real["frechet_classifier_distance"] < 0.3 * collapsed["frechet_classifier_distance"]
    assert real["recall"] > 0.7 and collapsed["recall"] < 0.2
    assert real["diversity"] > 0.8 and collapsed["diversity"] == pytest.approx(0, abs=1e-6)
    assert real["class_accuracy"] > 0.7 and real_accuracy["generated"] > collapsed_accuracy["generated"]
    assert [block["images"] for block in collapsed["classes"]] == [40] * 10
    # One classifier for both, and one file of statistics for each split.
    assert sorted(path.name for path in (tmp_path / "kept").iterdir())[0] == "classifier"
    assert (
        len(list((tmp_path / "kept").glob("*.npz"))) == 2 and len(list((tmp_path / "kept/classifier").iterdir())) == 1
    )


def test_a_classifier_that_is_trained_for_it_is_kept_by_how_it_was_trained(
    evaluation, digits, new_classifier, tmp_path
):
    def checksum(updates):
        measure = evaluation(extractor_training=lambda: ClassifierTraining(updates=updates, batch_size=32))
        images = StoredImages(digits.test, 0, {"split": "test"})
        (block,) = measure(images, digits, new_classifier, tmp_path / "kept")["extractors"]
        return block["checksum"]

    first, second = checksum(2), checksum(3)
    assert first != second and checksum(2) == first
    assert len(list((tmp_path / "kept/classifier").iterdir())) == 2


def test_without_network_the_offline_scores_go_on(evaluation, digits, export, make_generator, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBGAN_INCEPTION", raising=False)
    monkeypatch.setattr(extractors, "INCEPTION", str(tmp_path / "no such file.tar.gz"))
    measure = evaluation(inception=inception)
    images = SampledImages(make_generator(10, (8, 8, 1)), 0)
    report = measure(images, digits, None, tmp_path, [classifier_extractor(export)])
    assert [block["extractor"] for block in report["extractors"]] == [f"classifier in {export}"]
    assert "give its folder in the environment variable ROBGAN_INCEPTION" in report["notes"][0]


def test_inception_and_classifier_stand_side_by_side(
    evaluation, digits, export, inception_dir, make_generator, tmp_path
):
    measure = evaluation(inception=lambda: inception(inception_dir))
    images = SampledImages(make_generator(10, (8, 8, 1)), 0)
    report = measure(images, digits, None, tmp_path, [classifier_extractor(export)])
    first, second = (block["generated"] for block in report["extractors"])
    assert {"inception_score", "frechet_inception_distance", "kernel_inception_distance"} <= first.keys()
    assert {"classifier_score", "frechet_classifier_distance", "kernel_classifier_distance"} <= second.keys()
    assert first["class_accuracy"] is None  # Inception knows other classes


def test_fewer_images_than_features_are_refused_unless_told(digits, export, make_generator, tmp_path):
    images, given = SampledImages(make_generator(10, (8, 8, 1)), 0), [classifier_extractor(export)]
    options = {"samples": 8, "inception": None, "accuracy_training": None, "similarity_images": 0}
    with pytest.raises(ValueError, match="needs more images than its 8 features.*there are 8.*few_samples = True"):
        GenerationEvaluation(**options)(images, digits, None, tmp_path, given)
    report = GenerationEvaluation(few_samples=True, **options)(images, digits, None, tmp_path, given)
    assert report["extractors"][0]["generated"]["frechet_is_of_full_rank"] is False
    assert report["extractors"][0]["generated"]["frechet_classifier_distance"] >= 0


def test_a_file_with_too_few_images_is_refused(evaluation, digits, tmp_path):
    source = StoredImages(digits.test.take(30), 0, {})
    with pytest.raises(ValueError, match="There are 30 images, and GenerationEvaluation.samples is 400"):
        evaluation()(source, digits, None, tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"samples": 0}, "samples must be a whole number >= 1, got 0"),
        ({"subset": 3}, "must be more than nearest = 3"),
        ({"reference_images": 2}, "reference_images must be more than nearest"),
        ({"extractors": ["runs/digits"]}, "must be such as"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationEvaluation(**options)


def test_scores_while_training_are_two_metrics(digits, export, make_generator, tmp_path):
    scores = TrainingScores(classifier_extractor(export), samples=50, reference_images=100, batch_size=25)
    scores.check(digits)
    images = SampledImages(make_generator(10, (8, 8, 1)), 0)
    found = scores(images, digits, tmp_path)
    assert set(found) == {"generator_classifier_score", "generator_frechet_classifier_distance"}
    assert scores(images, digits, tmp_path) == found
    with pytest.raises(ValueError, match="TrainingScores needs more images than the extractor's 8 features, got 5"):
        TrainingScores(classifier_extractor(export), samples=5).check(digits)
