//! The program `quantize`.

use super::*;

#[test]
fn a_model_is_quantized_and_still_speaks() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (f32, small) = (path("f32.gguf"), path("small.gguf"));
    // What is quantized already is not quantized again unless that is meant.
    refused("quantize", &[&model, &f32], &["Q4_1", "--requantize"]);
    good(
        "quantize",
        &[&model, &f32, "--recipe", "f32", "--requantize"],
    );
    let line = good("quantize", &[&f32, &small, "--threads", "2", "--json"]);
    let found = object(&line);
    assert_eq!(found["recipe"], "Q4_K_M");
    assert_eq!(found["weights"], 134_515_008);
    assert_eq!(found["bytes"], fs::metadata(&small).unwrap().len());
    assert_eq!(found["tensors"].as_array().unwrap().len(), 272);
    // Rows of 576 are no whole blocks of 256.
    assert_eq!(found["tensors"][0]["name"], "output_norm.weight");
    assert_eq!(found["tensors"][1]["to"], "Q8_0");
    assert_eq!(found["tensors"][1]["instead_of"], Value::Null);
    let planned = good("quantize", &[&f32, &path("none.gguf"), "--dry-run"]);
    assert!(
        planned.contains("F32 → Q5_0 (rows are no whole blocks of Q4_K)"),
        "{planned}"
    );
    // What is there stays there.
    refused("quantize", &[&f32, &small], &["small.gguf", "--force"]);
    good("quantize", &[&f32, &small, "--force", "--recipe", "Q8_0"]);
    let fixed = ["--ctx", "64", "--max-tokens", "16", "-m", &small];
    let question = "What is 2+2?";
    let text = good("generate", &[&fixed[..], &[question]].concat());
    assert!(text.contains('4'), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn metadata_are_edited() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let to = dir.path().join("named.gguf").display().to_string();
    let fixed = [model.as_str(), &to, "--keep", "--force"];
    let args = [
        &fixed[..],
        &[
            "--set",
            "general.name=Mine=yours",
            "--set",
            "llama.context_length=1024",
            "--set",
            "my.number=-7",
            "--set",
            "my.flag=true",
            "--remove",
            "general.finetune",
            "--rename",
            "general.type=my.type",
        ],
    ]
    .concat();
    let said = good("quantize", &args);
    assert!(said.contains("tensors as they were"), "{said}");
    let found = object(&good("inspect", &["-m", &to, "--json", "--full"]));
    let entries = &found["metadata"];
    assert_eq!(entries["general.name"], "Mine=yours", "{found}");
    assert_eq!(entries["llama.context_length"], 1024);
    assert_eq!(entries["my.number"], -7);
    assert_eq!(entries["my.flag"], true);
    assert_eq!(entries["my.type"], "model");
    assert_eq!(entries["general.finetune"], Value::Null);
    for (args, words) in [
        (["--set", "no-equals-sign"], ["no-equals-sign", "KEY=VALUE"]),
        (["--set", "llama.context_length=many"], ["u32", "many"]),
        (
            ["--set", "tokenizer.ggml.tokens=a"],
            ["array of strings", "--remove"],
        ),
        (["--remove", "no.such.key"], ["no.such.key", "no metadata"]),
        (
            ["--rename", "no.such.key=other"],
            ["no.such.key", "no metadata"],
        ),
    ] {
        refused("quantize", &[&fixed[..], &args].concat(), &words);
    }
}

#[test]
fn what_cannot_be_written_says_what_to_do() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let folder = dir.path().display().to_string();
    let args = |to: &str| [model.as_str(), to, "--requantize"].map(str::to_owned);
    let no = |to: &str, words: &[&str]| {
        let args = args(to);
        refused("quantize", &args.each_ref().map(String::as_str), words);
    };
    no(&folder, &["folder", "path of the file"]);
    no(&format!("{folder}/no/such.gguf"), &["no folder", "make it"]);
    let all = [&model, "x.gguf", "--recipe", "Q9_K"];
    refused("quantize", &all, &["Q9_K", "Q4_K_M"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_or_an_interrupt_leaves_nothing() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let to = dir.path().join("cut.gguf").display().to_string();
    let args = [&model, &to, "--recipe", "F32", "--requantize"];
    // No file of more than a megabyte: the system refuses, as with a full disk.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(program("quantize").get_program())
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be written, it takes 539"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let mut child = program("quantize").args(args).spawn().unwrap();
    let begun = || fs::read_dir(dir.path()).unwrap().count() > 0;
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
