//! Names that carry data: long labels in hex, base32 or base64, as tunnels through name lookups make them.

use crate::target::Host;

/// A run of letters and digits this long by itself is data: an account id, a digest of 128 bits and the random
/// part of every large host's generated names are 32 characters at most.
const RUN_LIMIT: usize = 33;
/// Shorter runs are added up from this length on, which spares the parts of a UUID.
const PART: usize = 16;
/// What the shorter runs of one name may add up to: a generated name and a region's own number.
const PARTS_LIMIT: usize = 48;

/// Whether labels of the host look like encoded data: a finding for unknown hosts, not a proof.
///
/// Upper case is gone from a canonical host, so base64 is judged by what is left of it. International labels
/// (`xn--`) are spared: their encoding is their own.
pub fn encoded_label(host: &Host) -> bool {
    if host.ip().is_some() {
        return false;
    }
    let mut parts = 0;
    for run in host.as_str().split('.').filter(|label| !label.starts_with("xn--")).flat_map(runs) {
        if run.len() < PART || !looks_random(run) {
            continue;
        }
        parts += run.len();
        if run.len() >= RUN_LIMIT || parts >= PARTS_LIMIT {
            return true;
        }
    }
    false
}

fn runs(label: &str) -> impl Iterator<Item = &[u8]> {
    label.split(['-', '_']).map(str::as_bytes)
}

/// Hex throughout, or letters and digits so mixed as no word or version number is.
fn looks_random(run: &[u8]) -> bool {
    let digits = run.iter().filter(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits == run.len() {
        return false;
    }
    if run.iter().all(u8::is_ascii_hexdigit) {
        return true;
    }
    // Of random base32 characters a third changes between letter and digit, of random base64 a quarter.
    let changes = run.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    changes * 7 >= run.len() && distinct(run) * 3 >= run.len().min(PARTS_LIMIT)
}

fn distinct(run: &[u8]) -> usize {
    let seen = run.iter().fold(0u128, |seen, byte| seen | 1 << (byte & 0x7f));
    seen.count_ones() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(name: &str) -> bool {
        encoded_label(&Host::parse(name.as_bytes()).unwrap_or_else(|e| panic!("`{name}`: {e}")))
    }

    #[test]
    fn data_in_a_name_is_seen() {
        for name in [
            // base32 of 25 bytes
            "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.evil.example",
            "krugs4zanfzsa5dimuqgm2lson2ca43pnvsq5ka7.wild.test",
            // hex of 20 and of 32 bytes
            "68656c6c6f20776f726c642068656c6c6f20776f.evil.example",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a.evil.example",
            // base64url, its case folded
            "sgvsbg8gd29ybgqhifroaxmgaxmgysb0zxn0ig9mihroaw5ncw.evil.example",
            "z2hwx2fiy2rlzmdoawprbg1ub3bxcnn0dxz3ehl6mdeymzq1.evil.example",
            // cut into labels
            "k5ux2l3nmf2w4z7q6tgb.23tpobyxe43uov3ho6dz.a7k2m9x4q1z8w5e3r6t0.evil.example",
            "68656c6c6f20776f726c6420.68656c6c6f20776f726c6420.evil.example",
            // joined with hyphens
            "68656c6c6f20776f726c-642068656c6c6f20776f-726c642068656c6c6f20.evil.example",
            // under a service's shared name
            "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dz.someone.workers.dev",
        ] {
            assert!(flagged(name), "`{name}`");
        }
    }

    #[test]
    fn honest_generated_names_are_spared() {
        for name in [
            "d111111abcdef8.cloudfront.net",
            "550e8400-e29b-41d4-a716-446655440000.example.com",
            "550e8400e29b41d4a716446655440000.r2.cloudflarestorage.com",
            "ec2-203-0-113-25.compute-1.amazonaws.com",
            "a1b2c3d4e5f64789a0b1c2d3e4f56789-1234567890.us-east-1.elb.amazonaws.com",
            "0123456789abcdef0123456789abcdef.gr7.us-east-1.eks.amazonaws.com",
            "xn--80ak6aa92e.com",
            "xn--fiqs8sxootzz1a3b5c7d9e2f4g6h8i0j.example",
            "r3---sn-4g5e6nz7.googlevideo.com",
            "my-service-7d4b9c6f5-x2k9p.default.svc.cluster.local",
            "frontend-uc3kq7w2xa-ew.a.run.app",
            "deploy-preview-1234--my-site-with-a-long-name.netlify.app",
            "my-project-git-feature-some-long-branch-name-team.vercel.app",
            "thisisaverylongdomainnamewithoutanymeaningatall.example.com",
            "prod-europe-west4-kubernetes-cluster-2024-internal-loadbalancer.example.com",
            "10-0-0-1.my-namespace.pod.cluster.local",
            "o4504136533147648.ingest.us.sentry.io",
            "20241121.release.example.com",
            "1234567890123456789012345678901234567890.example.com",
            "192.0.2.1",
            "[2001:db8:1234:5678:9abc:def0:1234:5678]",
        ] {
            assert!(!flagged(name), "`{name}`");
        }
    }
}
