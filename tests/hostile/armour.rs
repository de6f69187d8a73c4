//! PEM that is odd (RFC 7468).

use crate::draft::{Draft, armoured};
use crate::{Case, own_name};

#[rustfmt::skip] // One case, one line.
pub fn cases() -> Vec<Case> {
    let sound = |name: &str| armoured(&Draft::new(&own_name(name)).der());
    let case = |name, expected, what, edit: &dyn Fn(String) -> Vec<u8>| Case { name, expected, what, text: edit(sound(name)) };
    let text = |edit: fn(String) -> String| move |pem| edit(pem).into_bytes();
    let pem = "InvalidPEM";
    vec![
        case("pem-plain", "signed", "nothing odd", &text(|pem| pem)),
        case("pem-crlf", "signed", "lines end with CRLF", &text(|pem| pem.replace('\n', "\r\n"))),
        case("pem-blank-lines", "signed", "blank lines around the block", &text(|pem| format!("\n\n\n{pem}\n\n\n"))),
        case("pem-no-last-newline", "signed", "no newline at the end", &text(|pem| pem.trim_end().to_owned())),
        case("pem-one-line", "signed", "base64 in one line", &text(|pem| {
            let mut lines: Vec<_> = pem.lines().collect();
            let (last, first) = (lines.pop().unwrap_or_default(), lines.remove(0));
            format!("{first}\n{}\n{last}\n", lines.concat())
        })),
        case("pem-explanation", "signed", "text before and behind the block", &text(|pem| format!("Subject: CN = volttron-operator\n{pem}Please sign soon.\n"))),
        case("pem-bom", "signed", "a byte order mark before the block", &text(|pem| format!("\u{feff}{pem}"))),
        case("pem-new-label", "signed", "the label of old programs, NEW CERTIFICATE REQUEST", &text(|pem| pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"))),
        case("pem-utf16", pem, "UTF-16", &|pem| pem.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        case("pem-nul", pem, "NUL inside the base64", &text(|pem| pem.replacen('M', "M\0", 1))),
        case("pem-headers", pem, "headers of RFC 1421", &text(|pem| pem.replacen('\n', "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1))),
        case("pem-two-blocks", pem, "two requests", &text(|pem| format!("{pem}{pem}"))),
        case("pem-block-in-explanation", pem, "a second BEGIN in the text behind", &text(|pem| format!("{pem}-----BEGIN CERTIFICATE REQUEST-----\n"))),
        case("pem-second-kind", pem, "a certificate block behind the request", &text(|pem| format!("{pem}-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))),
        case("pem-nested", pem, "a BEGIN inside the block", &text(|pem| pem.replacen('\n', "\n-----BEGIN CERTIFICATE REQUEST-----\n", 1))),
        case("pem-other-end", pem, "BEGIN and END of different kinds", &text(|pem| pem.replace("END CERTIFICATE REQUEST", "END CERTIFICATE"))),
        case("pem-certificate-label", pem, "the label of a certificate", &text(|pem| pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"))),
        case("pem-lower-case", pem, "the label in lower case", &text(|pem| pem.replace("CERTIFICATE REQUEST", "certificate request"))),
        case("pem-label-blank", pem, "a blank behind the label", &text(|pem| pem.replace("REQUEST-----", "REQUEST -----"))),
        case("pem-no-end", pem, "no END line", &text(|pem| pem.replace("-----END CERTIFICATE REQUEST-----", ""))),
        case("pem-url-safe", pem, "URL-safe base64", &text(|pem| pem.replacen("\nM", "\n-_", 1))),
        case("pem-padding", pem, "padding in the middle", &text(|pem| pem.replacen("\nM", "\nM==", 1))),
        case("pem-empty", "MalformedRequest", "an empty block", &text(|_| "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n".to_owned())),
        case("pem-dashes", pem, "dashes without end", &text(|_| "-----BEGIN ".repeat(3_000))),
        case("pem-large", "RequestTooLarge", "one byte more than 36,500", &text(|pem| format!("{}{pem}", " ".repeat(36_501 - pem.len())))),
        case("pem-largest", "signed", "36,500 bytes", &text(|pem| format!("{}{pem}", " ".repeat(36_500 - pem.len())))),
        case("pem-der", pem, "DER in place of PEM", &|pem| pem::parse(pem).expect("a block").into_contents()),
        case("pem-nothing", pem, "nothing at all", &text(|_| String::new())),
    ]
}
