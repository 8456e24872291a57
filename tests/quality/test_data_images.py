"""Folders of images: preprocessing as declared, labels from folders and CSV files, broken files."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from data_models import labels_of, model_of, opened, refusal, rows_of
from PIL import Image

from graphopt.quality.data import DataOptions, ImageOptions, open_dataset

NCHW = "float[N,3,4,6] x"


def image(path, height=4, width=6, mode="RGB", seed=0):
    depth = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *depth), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels, mode=None).save(path)
    return pixels


def prepared(folder, inputs=NCHW, **options):
    dataset = opened(folder, model_of(inputs), calibrates=False, image=ImageOptions(**options))
    return rows_of(dataset, "evaluation")


def test_pixels_become_scaled_channels_first(tmp_path) -> None:
    pixels = image(tmp_path / "a.png")
    found = prepared(tmp_path)
    assert found.shape == (1, 3, 4, 6)
    np.testing.assert_allclose(found[0], pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_layout_channels_mean_and_std(tmp_path) -> None:
    pixels = image(tmp_path / "a.png").astype(np.float64)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    wanted = (pixels[..., ::-1] / 255 - mean) / std
    found = prepared(
        tmp_path, "float[N,4,6,3] x", layout="nhwc", channels="bgr", mean=mean, std=std
    )
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
    found = prepared(tmp_path, scale=1.0, mean=(127.5,), std=(2.0,))
    np.testing.assert_allclose(found[0], (pixels.transpose(2, 0, 1) - 127.5) / 2, rtol=1e-6)
    grey = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    np.testing.assert_allclose(
        prepared(tmp_path, "float[N,1,4,6] x", channels="gray")[0, 0], grey / 255, rtol=1e-6
    )


def test_integer_inputs_get_the_pixels_as_they_are(tmp_path) -> None:
    pixels = image(tmp_path / "a.png")
    np.testing.assert_array_equal(
        prepared(tmp_path, "uint8[N,3,4,6] x")[0], pixels.transpose(2, 0, 1)
    )
    said = refusal(tmp_path, model_of("uint8[N,3,4,6] x"), image=ImageOptions(mean=(0.5,)))
    assert "pixels stay whole numbers" in said
    assert "pixels stay whole numbers" in refusal(tmp_path, model_of("int8[N,3,4,6] x"))
    assert "images cannot fill" in refusal(tmp_path, model_of("bool[N,3,4,6] x"))


def test_the_size_comes_from_the_model_or_is_asked_for(tmp_path) -> None:
    image(tmp_path / "a.png", 10, 10)
    assert prepared(tmp_path).shape == (1, 3, 4, 6)
    assert "size=224x224" in refusal(tmp_path, model_of("float[N,3,H,W] x"))
    assert prepared(tmp_path, "float[N,3,H,W] x", size=(7, 5)).shape == (1, 3, 7, 5)
    said = refusal(tmp_path, model_of(NCHW), image=ImageOptions(size=(7, 5)))
    assert "samples of shape (3, 7, 5), the model wants (N, 3, 4, 6)" in said
    whole = opened(tmp_path, model_of("float[3,4,6] x"), calibrates=False)
    assert rows_of(whole, "evaluation").shape == (3, 4, 6)


def half_black_half_white(path, height, width) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).save(path)


def test_stretch_crop_and_pad(tmp_path) -> None:
    half_black_half_white(tmp_path / "a.png", 40, 160)  # 1:4, made 1:1
    inputs = "float[N,3,20,20] x"
    stretched, cropped, padded = (
        prepared(tmp_path, inputs, resize=how)[0, 0] for how in ("stretch", "crop", "pad")
    )
    for found in (stretched, cropped):
        assert found[:, :9].max() == 0 and found[:, 11:].min() == 1
    assert padded[:7].max() == 0 and padded[13:].max() == 0  # 5 rows of 20 hold the image
    assert padded[8:12, 11:].min() == 1 and padded[8:12, :9].max() == 0
    for path, shape in (("a.png", (1, 30000)), ("a.png", (30000, 1))):
        half_black_half_white(tmp_path / path, *shape)
        for how in ("stretch", "crop", "pad"):
            assert prepared(tmp_path, inputs, resize=how).shape == (1, 3, 20, 20)


def test_formats_and_modes(tmp_path) -> None:
    for suffix in ("png", "bmp", "gif", "tiff", "webp", "ppm", "jpg", "JPEG"):
        image(tmp_path / f"a.{suffix}")
    (tmp_path / "misnamed.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    Image.new("P", (6, 4)).save(tmp_path / "palette.png", transparency=b"\0" * 9)
    Image.new("CMYK", (6, 4)).save(tmp_path / "cmyk.jpg")
    image(tmp_path / "alpha.png", mode="RGBA")
    image(tmp_path / "grey.png", mode="L")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    assert prepared(tmp_path).shape == (13, 3, 4, 6)


def test_labels_from_sub_folders(tmp_path) -> None:
    for number, name in enumerate(("dog/2.png", "cat/1.png", "dog/deep/1.png", "ant/9.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image(tmp_path / name, seed=number)
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    for labels in (None, "folder"):
        dataset = opened(tmp_path, model_of(NCHW), calibrates=False, labels=labels)
        assert labels_of(dataset, "evaluation").tolist() == [0, 1, 2, 2]
        assert dataset.labels == "folder"
        assert "sorted order: ant=0, cat=1, dog=2" in dataset.warnings[0]
    image(tmp_path / "top.png")
    assert opened(tmp_path, model_of(NCHW)).labels == ""
    assert "no labels 'folder'" in refusal(tmp_path, model_of(NCHW), labels="folder")
    assert "no labels 'y'" in refusal(tmp_path, model_of(NCHW), labels="y")


def table(folder, text) -> str:
    (folder / "labels.csv").write_text(text)
    return str(folder / "labels.csv")


def test_labels_from_a_table(tmp_path) -> None:
    for number, name in enumerate(("a.png", "b.png", "sub/a.png", "sub/c.png")):
        image(tmp_path / name, seed=number)
    whole = opened(tmp_path, model_of(NCHW), calibrates=False)

    def given(text):
        return opened(tmp_path, model_of(NCHW), calibrates=False, labels=table(tmp_path, text))

    dataset = given("file,label\nsub/a.png,7\nc.png,-1\na.png,3\n\n")
    assert labels_of(dataset, "evaluation").tolist() == [7, -1, 3]
    np.testing.assert_array_equal(
        rows_of(dataset, "evaluation"), rows_of(whole, "evaluation")[[2, 3, 0]]
    )
    assert "1 of 4 images" in dataset.warnings[0]
    assert labels_of(given("a.png,0.5\nb.png,-2e3"), "evaluation").tolist() == [0.5, -2000.0]
    for words in (["one", "2"], ["007", "1"]):
        dataset = given(f"a.png,{words[0]}\nb.png,{words[1]}\n")
        assert labels_of(dataset, "evaluation").tolist() == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png,1\nz.png,2\n", "line 2 of {} names 'z.png', no such image"),
        ("z.png,1\n", "line 1 of {} names 'z.png', no such image"),
        ("a.png,1\na.png,2\n", "names 'a.png' a second time"),
        ("a.png\n", "line 1 of {} has 1 fields"),
        ("", "names no image of the folder"),
        ("file,label\n", "names no image of the folder"),
        ("a.png,nan\n", "hold NaN or infinity"),
        ("a.png,99999999999999999999\n", "beyond 64 bits"),
        ('a.png,"' + "x" * 200_000, "cannot read the labels"),
        ("../../etc/passwd,1\n/etc/passwd,1\n", "names '/etc/passwd', no such image"),
    ],
)
def test_tables_that_do_not_fit(text, says, tmp_path) -> None:
    image(tmp_path / "a.png")
    path = table(tmp_path, text)
    assert says.replace("{}", path) in refusal(tmp_path, model_of(NCHW), labels=path)
    (tmp_path / "labels.csv").write_bytes(b"a.png,\xff\xfe\n")
    assert "a CSV file in UTF-8" in refusal(tmp_path, model_of(NCHW), labels=path)


def test_a_file_of_labels_in_the_order_of_the_paths(tmp_path) -> None:
    for name in ("b.png", "a.png"):
        image(tmp_path / "images" / name)
    np.save(tmp_path / "labels.npy", np.array([4, 5]))
    dataset = opened(
        tmp_path / "images", model_of(NCHW), calibrates=False, labels=str(tmp_path / "labels.npy")
    )
    assert labels_of(dataset, "evaluation").tolist() == [4, 5]


def test_broken_images_are_named(tmp_path) -> None:
    image(tmp_path / "a.png", 200, 200)
    path = tmp_path / "b.png"
    for content in ((tmp_path / "a.png").read_bytes()[:5000], b"", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(content)
        assert f"cannot read the image {path}: " in refusal(tmp_path, model_of(NCHW))
    path.unlink()
    path.symlink_to(path)
    assert f"cannot read the data {path}" in refusal(tmp_path, model_of(NCHW))


def test_images_that_would_lose_bits_or_fill_memory(tmp_path) -> None:
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert "more than 8 bits a channel" in refusal(tmp_path, model_of(NCHW))
    (tmp_path / "deep.png").unlink()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "huge.png")
    assert "has 9000x9000 pixels, the most is" in refusal(tmp_path, model_of(NCHW))
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    assert "huge.png: DecompressionBombError" in refusal(tmp_path, model_of(NCHW))


def test_images_feed_one_input(tmp_path) -> None:
    image(tmp_path / "a.png")
    said = refusal(tmp_path, model_of(NCHW + ",  float s"))
    assert "is a folder of images, and the model takes 2 inputs: x, s" in said


def test_a_preprocessing_without_images_is_refused() -> None:
    arrays = {"x": np.zeros((4, 3, 4, 6), np.float32)}
    said = refusal(arrays, model_of(NCHW), image=ImageOptions(size=(4, 6)))
    assert "holds no images" in said


def test_images_that_calibrate_beside_arrays_that_judge(tmp_path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        image(tmp_path / name)
    options = DataOptions(
        calibration=tmp_path,
        evaluation={"x": np.ones((5, 3, 4, 6), np.float32)},
        image=ImageOptions(),
    )
    dataset = open_dataset(options, model_of(NCHW))
    assert (dataset.count("calibration"), dataset.count("evaluation")) == (2, 5)
    assert dataset.labels == ""


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch) -> None:
    image(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert 'pip install "graphopt[images]"' in refusal(tmp_path, model_of(NCHW))


def test_options_as_text() -> None:
    text = "size=224x192, layout=nhwc,mean=0.485+0.456+0.406,std=0.229+0.224+2.25e-1"
    found = ImageOptions.parse(f"{text},channels=bgr,resize=crop,scale=1/255")
    assert found == ImageOptions(
        (224, 192), "nhwc", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bgr", 1 / 255, "crop"
    )
    assert ImageOptions.parse("") == ImageOptions()
    assert ImageOptions.parse("mean=1e+2").mean == (100.0,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size=224", "'size' does not take '224'. It takes HEIGHTxWIDTH"),
        ("size=0x4", "sides of 1 to"),
        ("size=99999x4", "sides of 1 to"),
        ("layout=chw", "It takes one of nchw, nhwc"),
        ("channels=cmyk", "It takes one of rgb, bgr, gray"),
        ("resize=fit", "It takes one of stretch, crop, pad"),
        ("mean=a", "'mean' does not take 'a'. It takes a number"),
        ("mean=1+2", "It takes 1 or 3 finite numbers"),
        ("mean=1+2+3,channels=gray", "It takes 1 or 1 finite numbers"),
        ("mean=nan", "finite numbers"),
        ("std=0", "numbers other than 0"),
        ("std=1/0", "a number"),
        ("scale=inf", "a finite number other than 0"),
        ("colour=rgb", "have no 'colour=rgb'. They are, as in size=224x224: size, layout"),
        ("size", "have no 'size'"),
        ("std=1,std=2", "is given twice"),
    ],
)
def test_options_that_cannot_be_meant(text, says) -> None:
    with pytest.raises(Exception) as caught:
        ImageOptions.parse(text)
    assert says in str(caught.value)
