//! `TensorBoard` event files: numbers over steps.
//!
//! A file is a sequence of records (length, masked CRC-32C of the length, an `Event` message in
//! protobuf, its masked CRC-32C). The field numbers are those of `tensorflow/core/util/event.proto`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainError;

/// An event file that scalars are appended to.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new event file in `folder`; every start of a run has its own. One that goes on after `step`
    /// tells the reader to drop the later points of the files before it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn create(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let now = seconds();
        let path = folder.join(format!("events.out.tfevents.{:.0}.{}.mentor", now, std::process::id()));
        let file = File::create(&path).map_err(TrainError::io(&path))?;
        let mut events = Self { path, file };
        let mut event = double(1, now);
        event.extend(bytes(3, b"brain.Event:2"));
        events.record(&event)?;
        if step > 0 {
            // A session log whose status is START: points from its step on are void.
            let mut restart = double(1, now);
            restart.push(2 << 3);
            restart.extend(varint(step + 1));
            restart.extend(bytes(7, &[1 << 3, 1]));
            events.record(&restart)?;
        }
        Ok(events)
    }

    /// Appends one number.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), TrainError> {
        let mut point = bytes(1, tag.as_bytes());
        point.push(2 << 3 | 5);
        point.extend((value as f32).to_le_bytes());
        let mut event = double(1, seconds());
        event.push(2 << 3);
        event.extend(varint(step));
        event.extend(bytes(5, &bytes(1, &point)));
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> Result<(), TrainError> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(crc32c(&length)).to_le_bytes());
        record.extend(event);
        record.extend(masked(crc32c(event)).to_le_bytes());
        self.file.write_all(&record).map_err(TrainError::io(&self.path))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![field << 3 | 2];
    message.extend(varint(content.len() as u64));
    message.extend(content);
    message
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut message = vec![field << 3 | 1];
    message.extend(value.to_le_bytes());
    message
}

/// CRC-32 with Castagnoli's polynomial, bit by bit: a few dozen bytes a record.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C in every catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// The events in a file, whose checksums are checked.
    fn records(events: &EventFile) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(&events.path).unwrap();
        let mut at = 0;
        let mut records = Vec::new();
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let event = &bytes[at + 12..at + 12 + length];
            let crc = u32::from_le_bytes(bytes[at + 12 + length..at + 16 + length].try_into().unwrap());
            assert_eq!(crc, masked(crc32c(event)));
            records.push(event.to_vec());
            at += 16 + length;
        }
        records
    }

    #[test]
    fn a_file_holds_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 0).unwrap();
        events.scalar("terms/cross_entropy", 300, 0.5).unwrap();
        let records = records(&events);
        assert_eq!(records.len(), 2);
        // Step 300 as a varint, then the tag and 0.5 as a float.
        assert!(records[1].windows(3).any(|window| window == [0x10, 0xac, 0x02]));
        assert!(records[1].ends_with(&0.5f32.to_le_bytes()));
    }

    #[test]
    fn a_run_that_goes_on_voids_the_points_after_its_step() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(&EventFile::create(folder.path(), 40).unwrap());
        // Step 41, then field 7 with two bytes: status START.
        assert!(records.len() == 2 && records[1].ends_with(&[0x10, 41, 0x3a, 2, 0x08, 1]), "{records:?}");
    }
}
