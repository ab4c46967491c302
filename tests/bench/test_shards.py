from __future__ import annotations

from fra.bench.shards import sharding


def test_the_comparison_says_what_it_promises() -> None:
    found = sharding(images=2500, few=200)
    assert found["shards"] == 3
    assert found["shards_touched"] == 1  # 25 new images fill the last shard
    assert found["images_per_second"] > 0
    assert 0 < found["one_percent_new_ratio"] < 1
    assert found["peak_mib"] > 50
