//! From `spec.request` to DER: base64, then one PEM block (RFC 7468).

use super::Rejection;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest PEM that is looked at, in bytes. Longer input is refused before any parsing.
pub const MAX_PEM_BYTES: usize = 36_500;

const BEGIN: &str = "-----BEGIN";
const END: &str = "-----END";

/// Takes the DER out of base64 of one PEM block. Text around the block is explanation (RFC 7468,
/// section 5.2), as `openssl req -text` writes it.
pub(super) fn decode(encoded: &str) -> Result<Vec<u8>, Rejection> {
    let compact: String = encoded.split_ascii_whitespace().collect();
    let length = compact.len() / 4 * 3;
    if length > MAX_PEM_BYTES + 3 {
        return Err(Rejection::TooLarge(length));
    }
    let text = STANDARD.decode(compact).map_err(|_| Rejection::NotBase64)?;
    if text.len() > MAX_PEM_BYTES {
        return Err(Rejection::TooLarge(text.len()));
    }
    if text.starts_with(&[0x30]) {
        return Err(Rejection::NotPem("it looks like DER; encode the PEM file"));
    }
    let text = String::from_utf8(text).map_err(|_| Rejection::NotPem("it is not text"))?;
    let damaged = || Rejection::NotPem("the block is damaged or cut short");
    let mut blocks = pem::parse_many(&text).map_err(|_| damaged())?;
    let block = match (blocks.pop(), blocks.is_empty()) {
        (Some(block), true) => block,
        (None, _) if text.contains(BEGIN) => return Err(damaged()),
        (None, _) => return Err(Rejection::NotPem("there is no PEM block")),
        (Some(_), false) => return Err(Rejection::NotPem("there is more than one block")),
    };
    if !matches!(
        block.tag(),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
    ) {
        return Err(Rejection::NotPem("the block is of another kind"));
    }
    if block.headers().iter().next().is_some() {
        return Err(Rejection::NotPem("the block has headers"));
    }
    if text.matches(BEGIN).count() != 1 || text.matches(END).count() != 1 {
        return Err(Rejection::NotPem("there is more than one block"));
    }
    Ok(block.into_contents())
}
