import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from models.networks.small_encoder import SmallEncoder
from tests.builders import option, render_wall


def frames(places: torch.Tensor) -> torch.Tensor:
    middle = {"fix_door_location": 30.0, "fix_wall_location": 32.0}
    layouts = {name: torch.full((len(places), 1), value) for name, value in middle.items()}
    return render_wall(places, layouts)


def places(count: int, seed: int) -> torch.Tensor:
    """(count, 2) pixels, dots that the wall does not hide."""
    drawn = 8 + 48 * torch.rand(3 * count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn[(drawn[:, 0] - 32).abs() > 8][:count]


def small(**changes) -> SmallEncoder:
    return instantiate(option("encoder", "small", img_size=65, **changes))


@pytest.fixture(scope="module")
def encoder() -> SmallEncoder:
    encoder = small()
    encoder.calibrate(frames(places(200, seed=0)))
    return encoder


def ranks(values: torch.Tensor) -> np.ndarray:
    return values.numpy().argsort().argsort().astype(float)


def test_latent_distance_follows_pixel_distance(encoder):
    first, second = places(300, seed=1), places(300, seed=2)
    latent = (encoder(frames(first)) - encoder(frames(second))).square().mean((1, 2)).sqrt()
    spearman = np.corrcoef(ranks(latent), ranks((first - second).norm(dim=1)))[0, 1]
    assert spearman >= 0.75, spearman


def test_it_tells_where_the_dot_is_to_a_pixel(encoder):
    """A linear read-out of the features; what a predictor can use at most."""
    train, held_out = places(400, seed=3), places(200, seed=4)
    features = [
        torch.cat([encoder(frames(p)).flatten(1), torch.ones(len(p), 1)], 1).double() for p in (train, held_out)
    ]
    weights = torch.linalg.lstsq(features[0], train).solution
    error = (features[1] @ weights - held_out).norm(dim=1)
    assert error.median() < 1


def test_calibration_centres_and_scales_each_width(encoder):
    features = encoder(frames(places(200, seed=0)))
    assert features.shape == (200, encoder.num_patches, encoder.emb_dim)
    assert features.mean(0).abs().max() < 1e-4
    widths = features.unflatten(-1, (2, 4, 4)).square().mean((0, 1, 2, 4))
    torch.testing.assert_close(widths, torch.ones(4), rtol=1e-3, atol=0)
    assert encoder.calibrated
    assert not small().calibrated


def test_calibration_is_saved_with_the_tensors(encoder):
    fresh = small()
    fresh.load_state_dict(encoder.state_dict())
    shown = frames(places(4, seed=5))
    assert torch.equal(fresh(shown), encoder(shown))
    assert "windows" not in encoder.state_dict()  # these follow from the image size


def test_constant_frames_do_not_divide_by_zero():
    encoder = small()
    encoder.calibrate(torch.full((5, 3, 65, 65), 255, dtype=torch.uint8))
    assert encoder(torch.zeros(1, 3, 65, 65)).isfinite().all()


def test_leading_dimensions_and_dtype_do_not_matter(encoder):
    shown = frames(places(6, seed=6))
    features = encoder(shown)
    assert torch.equal(encoder(shown.unflatten(0, (2, 3))), features.unflatten(0, (2, 3)))
    torch.testing.assert_close(encoder(shown.float()), features)


def test_tokens_are_places_in_row_major_order(encoder):
    corners = torch.tensor([[8.0, 8.0], [56.0, 8.0], [8.0, 56.0], [56.0, 56.0]], dtype=torch.float64)
    empty = encoder(frames(torch.tensor([[-40.0, -40.0]], dtype=torch.float64)))
    narrowest = (encoder(frames(corners)) - empty).unflatten(-1, (2, 4, 4))[:, :, :, 0].square().sum((2, 3))
    assert narrowest.argmax(1).tolist() == [0, 3, 12, 15]


def test_images_of_another_size_are_refused_with_both_sizes(encoder):
    with pytest.raises(ValueError, match=r"img_size=65, got images of \(64, 65\)"):
        encoder(torch.zeros(1, 3, 64, 65))


def test_another_environment_brings_its_own_colours():
    assert small(colours="maze", palettes={"maze": [[0, 1, 0, 0.5]]}).emb_dim == 16
    with pytest.raises(InstantiationException, match=r"must be one of rgb, wall.*\+encoder\.palettes\.rooms=\[\["):
        small(colours="rooms")
    with pytest.raises(InstantiationException, match=r"encoder\.palettes\.wall must be lists of four numbers"):
        small(palettes={"wall": [[1, 0, 0]]})
