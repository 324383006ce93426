import os
import pickle
from collections import Counter, OrderedDict

import pytest

from models.pickle_scan import failure_reason, globals_in


class Payload:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_found_at_every_protocol(protocol):
    names = globals_in(pickle.dumps([OrderedDict(), Payload(), OrderedDict()], protocol))
    assert names == {"collections.OrderedDict", f"{os.system.__module__}.system"}


def test_names_that_share_a_module_are_told_apart():
    module = OrderedDict.__module__
    assert globals_in(pickle.dumps([OrderedDict(), Counter()], 4)) == {f"{module}.OrderedDict", f"{module}.Counter"}


def test_plain_data_names_nothing():
    assert globals_in(pickle.dumps({"a": [1, 2.0, "os system", b"x", None, (True,)]})) == set()


def test_the_opcodes_of_old_instances_are_seen():
    assert globals_in(b"(ios\nsystem\n.") == {"os.system"}


def test_extension_codes_are_seen():
    assert globals_in(b"\x80\x02\x82\x07.") == {"copyreg.extension_7"}


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_an_incomplete_pickle_is_an_error(cut):
    with pytest.raises(ValueError):
        globals_in(pickle.dumps({"key": list(range(1000))})[:cut])


def test_a_reason_is_one_line_without_advice_to_drop_the_guard():
    error = pickle.UnpicklingError("re-run with weights_only=False\nWeightsUnpickler error: \n\nbad opcode\n\nsee x")
    assert failure_reason(error) == "bad opcode"
    error = pickle.UnpicklingError("Weights only load failed. Re-run with weights_only=False\n\nbad name\n\nsee x")
    assert failure_reason(error) == "bad name"
    assert failure_reason(KeyError()) == "KeyError"
