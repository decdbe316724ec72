#![allow(clippy::unwrap_used, missing_docs)]
use mentor_nets::*;
use burn::tensor::Device;
#[test]
fn fuzz() {
    let folder = tempfile::tempdir().unwrap();
    let net = || BackboneSpec { kind: BackboneKind::Resnet18, width: 2, output_stride: 32 }.init(&Device::flex());
    let g = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/");
    let a = folder.path().join("a.safetensors"); let b = folder.path().join("a.bpk");
    export_safetensors(&net(), &a, &Default::default(), false).unwrap();
    export_burnpack(&net(), &b).unwrap();
    let mut state = 12345u64;
    let mut rnd = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
    for (name, bytes, heads) in [("x.pth", std::fs::read(format!("{g}nets_tiny.pth")).unwrap(), 12000), ("y.pth", std::fs::read(format!("{g}nets_tiny_nested.pth")).unwrap(), 20000), ("x.safetensors", std::fs::read(&a).unwrap(), 9000), ("x.bpk", std::fs::read(&b).unwrap(), 9000)] {
        let path = folder.path().join(name);
        let (mut ok, mut err) = (0, 0);
        for i in 0..4000 {
            let mut f = bytes.clone();
            let n = if i % 2 == 0 { 1 } else { 4 };
            for _ in 0..n { let range = if i % 3 == 0 { f.len() } else { heads.min(f.len()) }; let at = if i % 5 == 4 { f.len() - 1 - (rnd() as usize % heads.min(f.len())) } else { rnd() as usize % range }; f[at] = if i % 2 == 0 { f[at] ^ (1 << (rnd() % 8)) } else { rnd() as u8 }; }
            if i % 7 == 0 { let cut = rnd() as usize % f.len(); f.truncate(cut); }
            std::fs::write(&path, &f).unwrap();
            match std::panic::catch_unwind(|| load_weights(net(), &path, &LoadOptions::default()).is_ok()) { Ok(true) => ok += 1, Ok(false) => err += 1, Err(_) => { std::fs::write(format!("/tmp/panic-{name}-{i}"), &f).unwrap(); } }
        }
        eprintln!("{name} ok {ok} err {err}");
    }
}
