//! A student learns from its teacher alone.

use std::fs;

use serde_json::Value;

use crate::support::{mentor, recipe, succeed, tiny};

#[test]
fn a_student_taught_by_pixel_wise_alone_agrees_with_its_teacher_ever_more() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = recipe(folder.path(), "teacher.toml", &tiny("fcn", "", 30));
    let taught = folder.path().join("teacher");
    succeed(mentor().args(["train", "--no-report"]).arg(teacher).arg("--out").arg(&taught));
    let before = fs::read(taught.join("checkpoints/step-00000030/model.safetensors")).unwrap();
    let rest = r#"
[teachers.one.fcn]
backbone = "resnet18"
width = 4
output_stride = 16
weights = "teacher"

[supervised]
weight = 0.0

[distill.pixel_wise]
weight = 1.0
"#;
    let student = recipe(folder.path(), "student.toml", &tiny("pspnet", rest, 60));
    let out = folder.path().join("student");
    succeed(mentor().args(["train", "--no-report"]).arg(student).arg("--out").arg(&out));
    let log = fs::read_to_string(out.join("log.jsonl")).unwrap();
    let values: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| {
            let terms = line["terms"].as_object()?;
            assert_eq!(terms.len(), 1, "labels were not to be used: {line}");
            terms["pixel_wise"]["value"].as_f64()
        })
        .collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let thirds: Vec<f64> = values.chunks(20).map(mean).collect();
    assert!(thirds[0] > thirds[1] && thirds[1] > thirds[2], "{thirds:?}");
    assert_eq!(before, fs::read(taught.join("checkpoints/step-00000030/model.safetensors")).unwrap());
}
