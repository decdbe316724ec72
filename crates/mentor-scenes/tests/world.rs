//! What holds of the world as a whole.

use mentor_scenes::{CLASSES, Scene, THINGS, draw};
use mentor_types::Season;

fn hash(scene: &Scene) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&scene.image.rgb);
    hasher.update(scene.mask.labels());
    for object in &scene.objects {
        hasher.update(&[object.class]);
        for pixel in object.extent {
            hasher.update(&pixel.to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[test]
fn scenes_have_the_same_bits_everywhere_and_for_all_time() {
    let scenes = [
        (0, 0, 160, Season::Summer),
        (0, 1, 160, Season::Winter),
        (7, 12, 96, Season::Summer),
        (7, 13, 256, Season::Summer),
    ];
    let hashes = scenes.map(|(seed, index, size, season)| hash(&draw(seed, index, size, season)));
    assert_eq!(hashes, HASHES, "another world needs another VERSION");
}

const HASHES: [&str; 4] = ["e27f26583b767ca8", "a050779862f1a635", "76a4bd4387b88f49", "cb64b5a5edfc9646"];

#[test]
fn a_scene_does_not_depend_on_what_is_drawn_beside_it() {
    let alone = hash(&draw(3, 5, 64, Season::Summer));
    let threads: Vec<_> =
        (4..8).map(|index| std::thread::spawn(move || hash(&draw(3, index, 64, Season::Summer)))).collect();
    let all: Vec<String> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    assert_eq!(all[1], alone);
    assert!(all[0] != alone && all[2] != alone);
}

#[test]
fn every_class_is_there_and_none_is_all() {
    let mut shares = [0.0; CLASSES.len()];
    let mut boxes = [0.0; CLASSES.len()];
    let scenes = 64;
    for index in 0..scenes {
        let scene = draw(11, index, 96, Season::Summer);
        let part = 1.0 / (scene.mask.labels().len() as f64 * scenes as f64);
        scene.mask.labels().iter().for_each(|label| shares[usize::from(*label)] += part);
        scene.objects.iter().for_each(|object| boxes[usize::from(object.class)] += 1.0 / scenes as f64);
    }
    let ranges = [0.25..0.55, 0.1..0.35, 0.05..0.25, 0.04..0.2, 0.05..0.35, 0.005..0.05, 0.002..0.03];
    for ((class, share), range) in CLASSES.iter().zip(shares).zip(ranges) {
        assert!(range.contains(&share), "{class} has {share:.4} of the pixels");
    }
    for (class, boxes) in CLASSES.iter().zip(boxes).enumerate() {
        assert_eq!(boxes.1 > 0.3, THINGS.contains(&(class as u8)), "{boxes:?}");
    }
}

#[test]
fn what_is_labelled_is_seen_where_its_box_is() {
    for index in 0..16 {
        let scene = draw(5, index, 128, Season::Summer);
        for object in &scene.objects {
            let [left, top, right, bottom] = object.extent;
            assert!(0.0 <= left && left + 2.0 <= right && right <= 128.0, "{object:?}");
            assert!(0.0 <= top && top + 2.0 <= bottom && bottom <= 128.0, "{object:?}");
            assert!(object.area <= (right - left) * (bottom - top) && (0.0..0.71).contains(&object.occluded));
            let inside = |at: usize| {
                let (x, y) = ((at % 128) as f32 + 0.5, (at / 128) as f32 + 0.5);
                (left..right).contains(&x) && (top..bottom).contains(&y)
            };
            let labels = scene.mask.labels().iter().enumerate();
            let own = labels.filter(|(at, label)| inside(*at) && **label == object.class).count() as f32;
            assert!(own > 0.5 * object.area, "{object:?}: {own} pixels");
        }
    }
}

#[test]
fn another_season_shows_the_same_streets_and_houses() {
    for index in 0..6 {
        let [summer, winter] = [Season::Summer, Season::Winter].map(|season| draw(2, index, 128, season));
        let both = summer.mask.labels().iter().zip(winter.mask.labels());
        let same = both.filter(|(summer, winter)| summer == winter).count();
        assert!(same as f32 > 0.9 * (128.0 * 128.0), "{same}");
        let apart = summer.image.rgb.iter().zip(&winter.image.rgb).filter(|(a, b)| a.abs_diff(**b) > 16).count();
        assert!(apart > 128 * 128, "{apart}");
    }
}
