"""Wrong types at the doors of the data room: one sentence each, where no type checker stands before it."""

import subprocess
import sys
from pathlib import Path

# In a process of its own, since under test every call is checked against its annotations first.
PROGRAM = """
import sys
from circuitry.data.decoding import numbered_batches
from circuitry.data.domains import DomainFolder
from circuitry.data.images import image_listing
from circuitry.study.mixtures.mixture_files import write_mixture
from circuitry.study.mixtures.selection import MixtureSettings, admitted, mixture
from circuitry.runs.errors import InputError

images = DomainFolder(sys.argv[1])
settings = MixtureSettings("cg-low", "sketch", ("cat",))
for call in (
    lambda: MixtureSettings("cg-low", "sketch", "cat"),
    lambda: MixtureSettings("cg-low", "sketch", (3,)),
    lambda: MixtureSettings("domain-interpolation", "sketch", ("cat",), other_domains="ink"),
    lambda: DomainFolder(sys.argv[1], missing_files="ignore"),
    lambda: DomainFolder(sys.argv[1], classes=[0]),
    lambda: DomainFolder(sys.argv[1], domains=3),
    lambda: images.label(0),
    lambda: images.select(0, "real"),
    lambda: mixture(sys.argv[1], settings),
    lambda: admitted(images, settings),
    lambda: image_listing(["1.png"]),
    lambda: write_mixture(images, {}, sys.argv[1] + "/t.tsv"),
    lambda: write_mixture(images.records, {}, sys.argv[1] + "/t.tsv", no_caption="drop"),
    lambda: next(numbered_batches(images.records, None, 1)),
    lambda: numbered_batches("1.png", None, 1),
    lambda: numbered_batches(sys.argv[1], None, 1),
):
    try:
        print("no error:", call())
    except InputError as error:
        print(error)
"""

EXPECTED = """\
Expected a sequence of held-out class names, but the single string 'cat' was given: write ('cat',).
Expected held-out class names as text, but 3 (int) was given.
Expected a sequence of domain names, but the single string 'ink' was given: write ('ink',).
missing_files must be one of 'refuse', 'skip', 'unchecked', but 'ignore' was given.
Expected class names as text, but 0 (int) was given.
Expected domain names as text, but 3 (int) was given.
Expected class names as text, but 0 (int) was given.
Expected class names as text, but 0 (int) was given.
Expected a sequence of image records, but the path 'ROOT' was given: DomainFolder(path).records holds the images of a \
folder.
Expected a sequence of image records, but a DomainFolder was given: pass its .records.
Expected a sequence of image records, as DomainFolder(path).records, but list with other content was given.
Expected a sequence of image records, but a DomainFolder was given: pass its .records.
no_caption must be one of 'refuse', 'skip', but 'drop' was given.
Expected paths of images, but ImageRecord was given; of an image record pass its .path.
Expected a sequence of paths, but the path '1.png' was given: write [path].
Expected a sequence of paths, but the path 'ROOT' was given: write [path].
"""


def test_wrong_types_are_refused_in_one_sentence(tmp_path: Path) -> None:
    for domain in ("real", "sketch"):
        (tmp_path / domain / "cat").mkdir(parents=True)
        (tmp_path / domain / "cat/1.png").touch()
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == EXPECTED.replace("ROOT", str(tmp_path))
