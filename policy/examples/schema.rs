//! Prints the JSON Schema of policy files, as `deploy/policy.schema.json` holds it.

fn main() {
    println!("{:#}", policy::document::schema());
}
