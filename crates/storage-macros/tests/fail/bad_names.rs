use storage_core::Entity;

#[derive(Entity)]
#[entity(table = "jobs; drop table users")]
struct Table {
    #[entity(key)]
    id: String,
}

#[derive(Entity)]
#[entity(table = "_storage_jobs")]
struct Reserved {
    #[entity(key)]
    id: String,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Columns {
    #[entity(key)]
    id: String,
    #[entity(column = "the priority")]
    priority: i64,
    _hidden: String,
    #[entity(index)]
    größe: i64,
}

fn main() {}
