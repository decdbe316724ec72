//! What a user has is not lost, and what a run says is not falsified in silence.

use std::fs;
#[cfg(unix)]
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::support::{card, fail, mentor, recipe, root, run, succeed, tiny};

/// A data set of two photos whose left, middle and right are sky, tree and road, stored as 5, 6 and 7.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    for index in 0..2 {
        RgbImage::from_fn(96, 64, |x, y| Rgb([x as u8, y as u8, index]))
            .save(data.join(format!("{index}.png")))
            .unwrap();
        let mask = GrayImage::from_fn(96, 64, |x, _| Luma([5 + (x / 32) as u8]));
        mask.save(data.join(format!("m{index}.png"))).unwrap();
    }
    fs::write(data.join("all.txt"), "0.png m0.png\n1.png m1.png\n").unwrap();
    write_card(&data, ["sky", "tree", "road"], [5, 6, 7]);
    data
}

fn write_card(data: &Path, names: [&str; 3], values: [u8; 3]) {
    let mut card = "name = \"small\"\ntitle = \"small\"\nlicence = \"CC0\"\nsource = \"a test\"\nget = \"a test\"\n\
                    splits = { all = { list = \"all.txt\" } }\n[masks]\nformat = \"index\"\n"
        .to_owned();
    let values = values.iter().enumerate().map(|(to, from)| format!("{{ from = {from}, to = {to} }}"));
    card += &format!("values = [{}]\n", values.collect::<Vec<_>>().join(", "));
    for (index, name) in names.iter().enumerate() {
        card += &format!("[[classes]]\nname = \"{name}\"\ncolor = [{index}, 0, 0]\n");
    }
    fs::write(data.join("dataset.toml"), card).unwrap();
}

/// A recipe for these data, with `rest` at its end.
fn small(folder: &Path, name: &str, rest: &str, steps: u64) -> PathBuf {
    let own = folder.join("data/dataset.toml").display().to_string();
    let text = tiny("fcn", rest, steps)
        .replace(&card(), &own)
        .replace("\"train_1_8\"", "\"all\"")
        .replace("\"val\"", "\"all\"");
    recipe(folder, name, &text)
}

/// Data and a run of two checkpoints, at steps 10 and 12.
fn prepare() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let out = folder.path().join("run");
    let recipe = small(folder.path(), "small.toml", "", 12);
    succeed(mentor().args(["train", "--no-report"]).arg(recipe).arg("--out").arg(&out));
    (folder, data, out)
}

/// A student of a teacher, and one that starts from weights.
fn heirs(folder: &Path, weights: &str) -> [PathBuf; 2] {
    let teacher = format!(
        "[teachers.big.fcn]\nbackbone = \"resnet18\"\nwidth = 4\noutput_stride = 16\nweights = \"{weights}\"\n\
         [distill.pixel_wise]\n"
    );
    let taught = small(folder, "taught.toml", &teacher, 1);
    let text = fs::read_to_string(small(folder, "plain.toml", "", 1)).unwrap();
    let text = text.replacen("output_stride = 16", &format!("output_stride = 16\nweights = \"{weights}\""), 1);
    [taught, recipe(folder, "started.toml", &text)]
}

#[test]
fn predictions_replace_no_photo_and_no_other_file_without_a_word() {
    let (folder, data, out) = prepare();
    let photo = data.join("0.png");
    let before = fs::read(&photo).unwrap();
    for to in [format!("{}/.", data.display()), format!("{}/../data", data.display())] {
        for more in [&[][..], &["--overwrite"]] {
            let error = fail(mentor().arg("predict").arg(&out).arg(&photo).args(["--out", &to]).args(more));
            assert!(error.contains("is one of the images"), "{error}");
        }
    }
    let error = fail(mentor().arg("predict").arg(&out).args(["0.png", "--out", "."]).current_dir(&data));
    assert!(error.contains("is one of the images"), "{error}");
    assert_eq!(fs::read(&photo).unwrap(), before);

    let to = folder.path().join("to");
    let predict = || {
        let mut command = mentor();
        command.arg("predict").arg(&out).arg(&photo).arg("--as-labels").arg("--out").arg(&to);
        command
    };
    succeed(&mut predict());
    fs::write(to.join("0.png"), "corrected by hand").unwrap();
    let error = fail(&mut predict());
    assert!(error.contains("already there") && error.contains("--overwrite"), "{error}");
    assert_eq!(fs::read(to.join("0.png")).unwrap(), b"corrected by hand");
    succeed(predict().arg("--overwrite"));
    assert_ne!(fs::read(to.join("0.png")).unwrap(), b"corrected by hand");
}

#[test]
fn classes_in_another_order_are_refused_wherever_a_run_meets_a_card() {
    let (folder, data, out) = prepare();
    let to = folder.path().join("to");
    let masks = || {
        let mut command = mentor();
        command
            .arg("predict")
            .arg(&out)
            .arg(data.join("0.png"))
            .args(["--as-labels", "--overwrite"])
            .arg("--out")
            .arg(&to);
        command
    };
    let recipe = folder.path().join("small.toml");
    let train = |how: &str| {
        let mut command = mentor();
        command.args(["train", "--no-report", how]).arg(&recipe).arg("--out").arg(&out);
        command
    };
    succeed(&mut masks());
    for (names, values, said) in [
        (["sky", "road", "tree"], [5, 6, 7], ["sky, tree, road", "sky, road, tree"]),
        (["sky", "tree", "road"], [5, 7, 6], ["`tree` is stored as 6", "says 7"]),
        (["sky", "tree", "street"], [5, 6, 7], ["sky, tree, road", "sky, tree, street"]),
    ] {
        write_card(&data, names, values);
        let of_run = |command: &str| {
            let mut of_run = mentor();
            of_run.arg(command).arg(&out);
            of_run
        };
        for (what, mut command) in [
            ("eval", of_run("eval")),
            ("report", of_run("report")),
            ("predict", masks()),
            ("resume", train("--resume")),
            ("replay", train("--replay=11")),
        ] {
            let error = fail(&mut command);
            assert!(said.iter().all(|said| error.contains(said)), "{what}: {error}");
        }
    }
}

#[test]
fn teachers_and_students_with_classes_in_another_order_are_refused_at_their_key() {
    let (folder, data, out) = prepare();
    let exported = folder.path().join("exported.safetensors");
    succeed(mentor().arg("export").arg(&out).arg("--to").arg(&exported));
    for weights in ["run", "exported.safetensors"] {
        write_card(&data, ["sky", "tree", "road"], [5, 6, 7]);
        for (recipe, key) in
            heirs(folder.path(), weights).iter().zip(["teachers.big.fcn.weights", "student.fcn.weights"])
        {
            write_card(&data, ["sky", "tree", "road"], [5, 6, 7]);
            succeed(mentor().arg("check").arg(recipe));
            // New names are no other order.
            write_card(&data, ["class_0", "class_1", "class_2"], [5, 6, 7]);
            succeed(mentor().arg("check").arg(recipe));
            write_card(&data, ["tree", "sky", "road"], [5, 6, 7]);
            let error = fail(mentor().arg("check").arg(recipe));
            assert!(error.contains(key) && error.contains("sky, tree, road there"), "{weights}: {error}");
            let text = fs::read_to_string(recipe).unwrap();
            let line = text.lines().position(|line| line.starts_with("weights")).unwrap() + 1;
            assert!(error.contains(&format!(".toml:{line}:")), "{weights}: {error}");
        }
    }
    let error = fail(mentor().arg("eval").arg(&out).arg("--weights").arg(&exported));
    assert!(error.contains("another order"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_by_nobody_who_takes_its_weights() {
    let (folder, data, out) = prepare();
    let model = out.join("checkpoints/step-00000012/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&model, bytes).unwrap();
    let to = folder.path().join("to");
    let [taught, started] = heirs(folder.path(), "run");
    for command in [
        mentor().arg("eval").arg(&out),
        mentor().arg("report").arg(&out),
        mentor().arg("predict").arg(&out).arg(data.join("0.png")).arg("--out").arg(&to),
        mentor().arg("export").arg(&out).arg("--to").arg(to.join("a.safetensors")),
        mentor().arg("check").arg(taught),
        mentor().arg("check").arg(started),
    ] {
        let error = fail(command);
        assert!(error.contains("step-00000012/model.safetensors: differs from its checksum"), "{error}");
        assert!(error.contains("after step 10, remove "), "{error}");
    }
    fs::remove_dir_all(out.join("checkpoints/step-00000012")).unwrap();
    succeed(mentor().arg("eval").arg(&out));
}

/// Starts with both outputs piped to nobody.
fn unheard(command: &mut Command) -> std::process::Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child
}

#[test]
fn a_reader_that_goes_away_ends_nothing() {
    for command in [mentor().arg("list"), mentor().arg("schema")] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let recipe = small(folder.path(), "small.toml", "", 3);
    let out = folder.path().join("run");
    assert!(unheard(mentor().arg("train").arg(&recipe).arg("--out").arg(&out)).wait().unwrap().success());
    assert!(out.join("result.json").exists() && out.join("report.html").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_an_error_where_somebody_waits_for_it() {
    let (success, _, said) = run(Command::new("sh")
        .current_dir(root())
        .args(["-c", "exec \"$0\" list >/dev/full"])
        .arg(env!("CARGO_BIN_EXE_mentor")));
    assert!(!success && said.contains("standard output") && !said.contains("panicked"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_terminal_that_closes_stops_a_run_cleanly_and_under_nohup_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let recipe = small(folder.path(), "small.toml", "", 100_000);
    let hang_up = |out: &Path, command: &mut Command| {
        let mut child = unheard(command);
        let start = Instant::now();
        let lines = || fs::read_to_string(out.join("log.jsonl")).map_or(0, |log| log.lines().count());
        let wait_for = |count: usize| {
            while lines() < count {
                assert!(start.elapsed() < Duration::from_secs(120), "the run does not go on");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait_for(3);
        // The kernel and the shell both say it.
        for _ in 0..2 {
            assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
        }
        let seen = lines();
        std::thread::sleep(Duration::from_millis(500));
        if child.try_wait().unwrap().is_none() && command.get_program() == "sh" {
            wait_for(seen + 3);
            child.kill().unwrap();
        }
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "the run does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait().unwrap().code()
    };
    let out = folder.path().join("stopped");
    let mut command = mentor();
    command.args(["train", "--no-report"]).arg(&recipe).arg("--out").arg(&out);
    // The tests may themselves run under `nohup`.
    // SAFETY: between fork and exec a signal may be set to its default.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let code = hang_up(&out, &mut command);
    assert_eq!(code, Some(130));
    let steps = fs::read_to_string(out.join("log.jsonl")).unwrap().lines().count();
    assert!(out.join(format!("checkpoints/step-{steps:08}")).is_dir(), "no checkpoint after step {steps}");

    let out = folder.path().join("nohup");
    let mut command = Command::new("sh");
    command.current_dir(root()).args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mentor")]);
    command.args(["train", "--no-report"]).arg(&recipe).arg("--out").arg(&out);
    // Killed by us, after it had gone on.
    assert_eq!(hang_up(&out, &mut command), None);
}
