"""How many files are divided into shards."""

from dataclasses import dataclass

LIST_FILE = "list.json"  # in the folder of a list, what says how it is divided


@dataclass(frozen=True)
class Shards:
    """`files` files in shards of `shard_files` each, of which the last has the rest. Both are counted from 0."""

    files: int
    shard_files: int

    @property
    def count(self) -> int:
        """The number of shards."""
        return -(-self.files // self.shard_files)

    def files_of(self, shard: int) -> range:
        """The numbers of the files in a shard."""
        start = shard * self.shard_files
        return range(start, min(start + self.shard_files, self.files))

    def size(self, shard: int) -> int:
        """How many files a shard has."""
        return len(self.files_of(shard))
