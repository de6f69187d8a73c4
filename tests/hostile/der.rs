//! DER, and what is nearly DER, from bytes.

/// One element.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag], length(content.len()).as_slice(), content].concat()
}

/// One element whose length is written in `octets` octets, more than needed.
pub fn tlv_padded(tag: u8, content: &[u8], octets: usize) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let mut padded = vec![0; octets.saturating_sub(bytes.len())];
    padded.extend(&bytes[bytes.len().saturating_sub(octets)..]);
    let first = 0x80 | u8::try_from(octets).expect("few octets");
    [&[tag, first], padded.as_slice(), content].concat()
}

/// One element of indefinite length (BER).
pub fn tlv_indefinite(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], content, &[0, 0]].concat()
}

/// A SEQUENCE.
pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A SET.
pub fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

/// A BIT STRING without unused bits.
pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content].concat())
}

/// An INTEGER from its unsigned bytes.
pub fn uint(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    match number.first() {
        None => tlv(2, &[0]),
        Some(first) if *first >= 0x80 => tlv(2, &[&[0], number].concat()),
        Some(_) => tlv(2, number),
    }
}

/// The content of the first element in `bytes`, and what follows it.
pub fn open(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match bytes[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let octets = usize::from(long & 0x7f);
            let length = bytes[2..2 + octets]
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + octets)
        }
    };
    bytes[header..].split_at(length)
}

fn length(length: usize) -> Vec<u8> {
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        return vec![short];
    }
    let bytes = length.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let count = u8::try_from(bytes.len() - zeros).expect("at most eight");
    [&[0x80 | count], &bytes[zeros..]].concat()
}

// Algorithm identifiers and types, ready made.
pub const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
pub const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
pub const RSA_KEY: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
pub const EC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
pub const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
pub const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
pub const X25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x6e";
pub const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
pub const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
pub const ORGANIZATION: &[u8] = b"\x06\x03\x55\x04\x0a";
pub const EXTENSION_REQUEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
pub const CHALLENGE_PASSWORD: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07";
pub const UNKNOWN: &[u8] = b"\x06\x03\x2a\x03\x04";
pub const SUBJECT_ALT_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";
pub const BASIC_CONSTRAINTS: &[u8] = b"\x06\x03\x55\x1d\x13";
pub const KEY_USAGE: &[u8] = b"\x06\x03\x55\x1d\x0f";
pub const EXTENDED_KEY_USAGE: &[u8] = b"\x06\x03\x55\x1d\x25";
pub const NAME_CONSTRAINTS: &[u8] = b"\x06\x03\x55\x1d\x1e";
pub const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x0e";
pub const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x23";
pub const CRL_DISTRIBUTION_POINTS: &[u8] = b"\x06\x03\x55\x1d\x1f";
pub const CERTIFICATE_POLICIES: &[u8] = b"\x06\x03\x55\x1d\x20";
