from __future__ import annotations

import pytest

from fra.bench.shards import compare_sharding


@pytest.mark.slow
def test_comparison_with_webdataset() -> None:
    found = compare_sharding(images=1100, few=200)
    assert found["shards"] == 2
    assert found["shards_written"] == 1  # 11 new images fill the last shard
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
    assert found["images_per_second"] > 0
    assert 0 < found["one_percent_new_ratio"] < 1
    assert found["peak_mib"] > 50
