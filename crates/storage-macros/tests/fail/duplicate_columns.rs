use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
struct Job {
    #[entity(key)]
    id: String,
    note: String,
    #[entity(column = "Note")]
    remark: String,
}

fn main() {}
