"""bcftools by pip, and what tests do without the programs that pip cannot bring."""

from __future__ import annotations

import os
import subprocess

import pysam
import pytest
from programs import MAY_NOT_SKIP, PACKAGES, require_program
from vcf_tools import bcftools, run_bcftools, write_program

from ragimpute import example

TARGET = example.path("target.vcf.gz")


def test_a_missing_program_skips_and_names_the_package(tmp_path):
    environment = {"PATH": str(tmp_path)}
    for name in ("bcftools", "plink2"):
        with pytest.raises(pytest.skip.Exception, match=f"install the Debian package {name}$"):
            require_program(name, environment)


def test_a_missing_program_fails_where_nothing_may_be_skipped(tmp_path):
    environment = {"PATH": str(tmp_path), MAY_NOT_SKIP: "1"}
    with pytest.raises(pytest.fail.Exception, match="install the Debian package plink2"):
        require_program("plink2", environment)
    with pytest.raises(pytest.skip.Exception, match="Debian has no package of it"):
        require_program("nextflow", environment)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_program_that_is_there_is_used(tmp_path, name):
    (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / name).chmod(0o755)
    require_program(name, {"PATH": str(tmp_path), MAY_NOT_SKIP: "1"})


def test_commands_print_and_write_files(tmp_path):
    with pysam.VariantFile(str(TARGET)) as file:
        names, positions = list(file.header.samples), [record.pos for record in file]
    assert bcftools("query", "-l", TARGET).split() == names
    copies = [("-Ob", "x.bcf"), ("-Oz", "x.vcf.gz"), ("-Ov", "x.vcf")]
    for kind, name in copies:
        for out in (["-o", tmp_path / name], [f"--output={tmp_path / name}"]):
            assert bcftools("view", kind, *out, TARGET) == ""
            found = bcftools("query", "-f", "%POS\n", tmp_path / name).split()
            assert list(map(int, found)) == positions
    bcftools("index", "-t", tmp_path / "x.vcf.gz")
    assert bcftools("index", "--nrecords", tmp_path / "x.vcf.gz") == f"{len(positions)}\n"


def test_faults_and_warnings_are_raised(tmp_path):
    with pytest.raises(RuntimeError, match=r"^bcftools view \S*none.vcf ended with 1: .*No such "):
        bcftools("view", tmp_path / "none.vcf")
    path = tmp_path / "x.vcf"
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    path.write_text(f"{head}20\t5\t.\tA\tC\t.\t.\t.\n")
    done = run_bcftools("view", "-H", path)
    assert (done.returncode, done.stdout) == (0, "20\t5\t.\tA\tC\t.\t.\t.\n")
    assert "Contig '20' is not defined" in done.stderr
    with pytest.raises(RuntimeError, match="Contig '20' is not defined"):
        bcftools("view", path)


def test_other_programs_find_it_on_the_path(tmp_path):
    program = write_program(tmp_path)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = f"bcftools view -Ou {TARGET} | bcftools query -l - | head -n 1"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "HG00102\n", "")
    assert program.name == "bcftools"
