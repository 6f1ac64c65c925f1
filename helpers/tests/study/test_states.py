"""The states of the explorer: what is kept is what the networks answer, and is computed again."""
import numpy as np
import pytest

from helpers import datasets, frequency, jpeg, networks, saliency
from helpers.artifacts import files, paths, store
from helpers.study import states
from helpers.tests.shown import RECIPES


@pytest.fixture(scope="module")
def kept(shown):
    """The states of RECIPES, their store in the place of the project's."""
    folder, found = shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MADE", folder)
        patch.delenv("FRESH", raising=False)
        yield found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.dataset)
def test_states_are_what_they_say(kept, recipe):
    found, data, (model, _) = kept[recipe], datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y, shown = data.x_test[found["index"]], data.y_test[found["index"]], states.shown_images(found)
    assert np.array_equal(found["x"] / np.float32(255), x) and np.array_equal(found["y"], y)
    assert len(set(y)) == len(y) and (found["logits"][:, 0, 0].argmax(axis=1) == y).all()
    for s, (attack, level) in enumerate(states.columns(recipe.dataset)):
        moved = shown[:, s] - x[:, None]
        linf, l2 = np.abs(moved).max(axis=(2, 3, 4)), np.sqrt(np.square(moved).sum(axis=(2, 3, 4)))
        np.testing.assert_allclose(found["linf"][:, s], linf, atol=1e-5)
        np.testing.assert_allclose(found["l2"][:, s], l2, rtol=0.01, atol=1e-5)
        if level is not None:
            x_adv = states.explored(model, x, y, attack, level, recipe.dataset)
            assert (np.abs(shown[:, s, 0] - x_adv) <= 0.51 * found["scale"][:, s, None, None, None]).all()
            assert np.array_equal(shown[:, s, 2], jpeg.compress(x_adv, 50))
            assert found["linf"][:, s,
                                 0].max() <= datasets.record(recipe.dataset).explorer_radii[level] + 1e-6
        answer = found["logits"][:, s, 0].argmax(axis=1)
        assert attack != "carlini_wagner" or ((answer != y) == (found["l2"][:, s, 0] > 0)).all()
    assert not found["l2"][:, 0, 0].any() and not found["delta"][:, 0].any() and np.isnan(
        found["high"][:, 0, 0]).all()



def test_logits_and_maps_are_the_networks(kept):
    recipe = RECIPES[1]
    found, (model, _) = kept[recipe], networks.load_or_train(recipe)
    images, answer = states.shown_images(found)[:, 3, 1], found["logits"][:, 3, 1].argmax(axis=1)
    np.testing.assert_allclose(found["logits"][:, 3, 1], model(images).numpy(), atol=1e-3)
    for k, label in enumerate((found["y"], answer)):
        cam = found["cam"][:, 3, 1, k] * found["top"][:, None, None] / 255
        np.testing.assert_allclose(cam, saliency.grad_cam(model, images, label),
                                   atol=found["top"].max() / 255)
    assert (found["cam"].max(axis=(1, 2, 3, 4, 5)) == 255).all()



def test_a_few_signs_may_differ_on_another_machine(kept):
    found, rows = kept[RECIPES[1]], np.arange(len(kept[RECIPES[1]]["y"]))
    s = states.columns(RECIPES[1].dataset).index(("fgsm", 4))
    draws = np.random.default_rng(0).random(found["delta"][:, s].shape)

    def agree(flipped, longer=1):
        delta = np.where(draws < flipped, -1, 1) * found["delta"][:,
                                                                  s] * found["scale"][:, s, None, None, None]
        return states._column_agrees(found, s, rows, longer * delta, 0.9)
    assert agree(0) and agree(0.02)
    assert not agree(0.2) and not agree(0, 1.1)



def test_what_was_changed_is_not_believed(kept):
    recipe = RECIPES[1]  # whose states do not ship
    path, = (path for path in paths.MADE.rglob("explorer*.npz")
             if recipe.filename in str(store.read_record(path)))
    before, record = path.read_bytes(), store.read_record(path)
    states.states(recipe)
    longer = kept[recipe]["l2"].copy()
    longer[:, -1, -1] *= 1.1  # of Carlini-Wagner, behind JPEG: never attacked anew
    for name, changed in [*((name, kept[recipe][name][::-1])
                            for name in ("index", "x", "logits", "delta", "l2")),
                          ("l2", longer), ("linf", 0 * kept[recipe]["linf"]),
                          ("high", 0 * kept[recipe]["high"]),
                          ("cam", kept[recipe]["cam"][..., ::-1])]:
        np.savez(path, **kept[recipe] | {name: changed})
        files.write_json(store.record_path(path), record | {"sha256": store.file_sha256(path)})
        with pytest.raises(ValueError, match="states of the explorer of .* are not those that it computes"):
            states.states(recipe)
    path.write_bytes(before)
    files.write_json(store.record_path(path), record)
    good, rng = kept[recipe], np.random.default_rng(0)
    outcomes = [agrees for *_, agrees in states.recompute_explorer(record["parameters"], good, rng)]
    assert outcomes == [True] * (3 + len(states.columns(recipe.dataset)))
    x = good["x"]  # all columns those of an attack that does nothing, consistent with one another
    still = [states._measured(networks.load_or_train(recipe)[0], x / np.float32(255), good["y"],
                              x / np.float32(255))
             for _ in states.columns(recipe.dataset)]
    forged = states._packed({name: np.stack([part[name] for part in still], axis=1) for name in still[0]},
                            x / np.float32(255))
    outcomes = [agrees for *_, agrees in states.recompute_explorer(record["parameters"], good | forged, rng)]
    assert all(outcomes[:3]) and outcomes[3:].count(False) >= len(outcomes[3:]) - 2



def test_high_share_of_waves():
    rng = np.random.default_rng(0)
    low, high = (frequency.fourier_basis(32, *where)[None, ..., None] for where in ((3, 4), (0, 12)))
    share = states.high_share(np.concatenate([low, high, 3 * low + 4 * high + 1]))
    np.testing.assert_allclose(share, [0, 1, 16 / 25], atol=1e-9)
    assert np.isnan(states.high_share(np.ones((1, 8, 8, 3)))).all()
    white = states.high_share(rng.standard_normal((200, 32, 32, 1))).mean()
    assert abs(white - (1 - np.pi / 16)) < 0.02  # the square's part outside the circle



def test_states_refuse_what_does_not_fit(kept):
    for wrong in (0, "2", 1.0):
        with pytest.raises(ValueError, match="per_class must be an integer >= 1, got"):
            states.states(RECIPES[0], per_class=wrong)
    for wrong in (("square", 1), ("fgsm", 9), ("fgsm", None)):
        with pytest.raises(ValueError, match="attack and level must be among"):
            states.explored(None, None, None, *wrong, "mnist")
