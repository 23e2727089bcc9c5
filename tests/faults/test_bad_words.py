"""What a user mistypes: every command refuses it at once, in one line with cause and remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from exporter.cli import app

ROWS = """
export | Missing argument 'source', as pocketship export | pocketship export --help
export mimilm | unknown source | did you mean minilm?
export ./nowhere | no such file or folder | check the path
export ../nowhere/model | no such file or folder | pocketship zoo
export minilm --target onx | unknown target 'onx' | give onnx, tflite, coreml or all
export minilm --targt onnx | No such option: --targt | Possible options: --strict, --target
export minilm --opset many | Invalid value for '--opset' | pocketship export --help
export minilm --opset 3 | opset | pocketship export --help
export minilm --min-ios 3 | ios | pocketship export --help
export minilm --coreml-precision int3 | int3 | pocketship export --help
export minilm --atol nan | --atol nan is no tolerance | pocketship export --help
export minilm --input-shape image | cannot read 'image' | write it as name=1,3,224,224
export minilm --dynamic ids | cannot read 'ids' | write it as name:axis
export minilm --max-size 3 | '3' has no unit | give it as 3MB
export minilm --max-size 3XB | '3XB' is no size | as 3MB
export minilm --max-size 0MB | '0MB' holds no model | give it as 3MB
export minilm --max-drop 1 | '1' is no percentage | give it as 1%
export minilm --max-drop 1% | a limit is for a recipe | add --quantize
export minilm --min-speedup 2 | a limit is for a recipe | add --quantize
export minilm --quantize int3 | int3 | int8
export minilm --prune 2 | --prune | ;
export minilm --recipe nofile.yaml | nofile.yaml | ;
export minilm --preprocessor nofile.json | nofile.json | ;
export minilm --sign nokey | nokey | ;
export minilm --labels nofile | --labels nofile: cannot read it | check the path
export minilm --image size | cannot read 'size' | write it as size=224,mean=
export minilm --tokenizer nofile | --tokenizer nofile: cannot read it | check the path
init | Missing argument | pocketship init --help
init model.txt | the name does not end in .py | write it as model.txt.py
init no/model.py | no/model.py | ;
verify | Missing argument 'bundle', as pocketship verify | pocketship verify --help
verify nowhere | no bundle here | give a folder that pocketship export wrote
verify BUNDLE --target onxx | 'onxx' is no format | give onnx, tflite, coreml or all
verify BUNDLE --publik-key k | No such option: --publik-key | Possible options: --public-key
verify BUNDLE --public-key nokey | nokey | ;
verify BUNDLE more | unexpected extra argument | pocketship verify --help
inspect | Missing argument 'path', as pocketship inspect | pocketship inspect --help
inspect nofile | no such bundle or artifact | check the path
inspect BUNDLE/README.md | no runtime for a file ending in '.md' | give a file ending in .onnx
inspect BUNDLE --tensors few | Invalid value for '--tensors' | pocketship inspect --help
schema --result | No such option: --result | Possible options: --results
sensitivity | Missing argument 'source', as pocketship sensitivity | pocketship sensitivity --help
sensitivity digits --bits 3 | no weight has '3' bits | give some of
sensitivity digits --plot x.pdf | the plot is a PNG | give a name that ends in .png
sensitivity digits --plot no/x.png | no such folder | make it first
doctor --jsn | No such option: --jsn | Possible options: --json
zoo minilm | unexpected extra argument | pocketship zoo --help
eval BUNDLE | Missing option '--data', as pocketship eval | pocketship eval --help
eval BUNDLE --data digitz | no such task, folder or file | did you mean digits?
eval nowhere --data digits | no such bundle or artifact | check the path
tasks digits | unexpected extra argument | pocketship tasks --help
bench | Missing argument | pocketship bench --help
bench nowhere | no such bundle or artifact | check the path
bench BUNDLE --on shh://x | no such device | give local, ssh://user@host[:port]
bench BUNDLE --threads 0 | 0 is too little | give 1 or more
bench BUNDLE --seconds 0 | 0 is too little | give more than 0
bench BUNDLE --precision 5 | '5' is no percentage | give it as 1%
bench BUNDLE --sustained 1 | '1' is no time of two seconds | give it as 10m
bench BUNDLE --limit 3 | no samples to limit | give --data
bench BUNDLE --target onxx | 'onxx' is no format | give onnx, tflite, coreml or all
bench BUNDLE -o no/x.json | cannot be written | give a file in a folder that exists
bench BUNDLE --fleet no.yaml | no.yaml | ;
report no.json | cannot be read | check the path
report --history none --since yesterday | yesterday | ;
report -o no/report.html | cannot be written | give a file in a folder that exists
compare a.json | Missing argument 'B.json', as pocketship compare | pocketship compare --help
compare a.json b.json --fail-over much | much | ;
suite | Missing option '--output' / '-o', as pocketship suite | pocketship suite --help
suite -o s --models mimilm | no 'mimilm' | give all, or some of minilm
suite -o s --recipes int3 | no 'int3' | give all, or some of float32
suite -o s --on ssh://x@127.0.0.1:1 | no board answers | check address, power and sshd
suite -o s --targets onx | unknown target 'onx' | give onnx, tflite, coreml or all
embed BUNDLE | no platform given | add one of --android DIR
embed nowhere --web w | no bundle here | give a folder that pocketship export wrote
delta BUNDLE | Missing argument 'new', as pocketship delta | pocketship delta --help
delta BUNDLE nowhere -o u | no bundle here | give a folder that pocketship export wrote
delta BUNDLE BUNDLE -o u --density 3 | '3' is no percentage | give it as 1%
apply nofile BUNDLE | cannot be read | check the path
keygen | Missing argument 'name', as pocketship keygen | pocketship keygen --help
sign BUNDLE | Missing option '--key', as pocketship sign | pocketship sign --help
sign BUNDLE --key nokey | nokey | ;
pack nowhere -o p | no bundle here | give a folder that pocketship export wrote
unpack nofile -o p | nofile | ;
exprot minilm | No such command 'exprot' | Did you mean 'export'?
--versoin | No such option: --versoin | Possible options: --version
"""
TABLE = [tuple(map(str.strip, row.split("|"))) for row in ROWS.strip().splitlines()]


def test_there_are_rows_of_every_command():
    assert len(TABLE) >= 60
    assert set(get_command(app).commands) <= {words.split()[0] for words, _, _ in TABLE}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "cause", "mend"), TABLE, ids=[words for words, _, _ in TABLE])
def test_it_is_one_line(words, cause, mend, exported, pocketship, tmp_path: Path):
    typed = [word.replace("BUNDLE", str(exported("mlp"))) for word in words.split()]
    done = pocketship(*typed, cwd=tmp_path, XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 2 and done.stdout == "", (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("pocketship: ") and cause in line and mend in line, line
    assert not list(tmp_path.iterdir()), "nothing is left behind"
