//! The byte alphabet of GPT-2: each byte is written as one printable character.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the others follow each other from
//! U+0100 on, in ascending order.

/// Whether the byte is written as the character of the same number.
const fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// How many of the others there are: `0x00..=0x20`, `0x7F..=0xA0` and `0xAD`.
const OTHERS: usize = 68;

const fn others() -> [u8; OTHERS] {
    let mut others = [0; OTHERS];
    let (mut byte, mut n) = (0, 0);
    while byte < 256 {
        if !is_itself(byte as u8) {
            others[n] = byte as u8;
            n += 1;
        }
        byte += 1;
    }
    others
}

static OTHER_BYTES: [u8; OTHERS] = others();

/// The byte that a character of the alphabet is written for.
pub(super) fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) => is_itself(byte).then_some(byte),
        Err(_) => OTHER_BYTES.get(code.checked_sub(0x100)? as usize).copied(),
    }
}

/// The bytes that a text of the alphabet is written for; `None` if a character is not of it.
pub(super) fn bytes_of(text: &str, bytes: &mut Vec<u8>) -> Option<()> {
    for c in text.chars() {
        bytes.push(byte_of(c)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut seen = [0; 256];
        for byte in (0..0x1000).filter_map(char::from_u32).filter_map(byte_of) {
            seen[byte as usize] += 1;
        }
        assert_eq!(seen, [1; 256]);
        // As everybody knows them from vocabularies.
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('ĉ'), Some(b'\t'));
        assert_eq!(byte_of('Ń'), Some(0xAD));
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('ń'), None);
    }
}
