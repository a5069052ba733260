use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs")]
enum Job {
    Ready,
    Done,
}

fn main() {}
