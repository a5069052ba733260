use storage_core::Entity;

#[derive(Entity)]
#[entity(tabel = "jobs")]
struct Misspelt {
    #[entity(key)]
    id: String,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Field {
    #[entity(key)]
    id: String,
    #[entity(defualt = 0)]
    priority: i64,
    #[entity(fast)]
    note: String,
}

fn main() {}
