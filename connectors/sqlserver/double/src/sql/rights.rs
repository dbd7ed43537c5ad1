//! Users that Entra ID knows, and what they may do with the objects of the database. Whoever is no such user owns all of it.
//! <https://learn.microsoft.com/sql/relational-databases/security/permissions-database-engine>

use rusqlite::{Connection, OptionalExtension, params};

use super::ast::{Name, Permission};
use super::catalog::{self, add_row, same, stored_view};
use crate::error::SqlError;

/// The number in sys.database_principals.
pub type User = i64;

/// Those that each database has, and no one grants anything to here.
const RESERVED: [&str; 5] = ["dbo", "guest", "INFORMATION_SCHEMA", "sys", "public"];

/// There is no directory here to be asked whether it knows the name.
pub fn create_user(connection: &Connection, name: &str) -> Result<(), SqlError> {
    if RESERVED.iter().any(|reserved| same(reserved, name)) || user(connection, name)?.is_some() {
        let message = format!("User, group, or role '{name}' already exists in the current database.");
        return Err(SqlError::new(15023, 16, message));
    }
    let stored = stored_view(connection, "database_principals")?;
    let next: User = connection.query_row(&format!("SELECT ifnull(max(c2), 4) + 1 FROM {stored}"), [], |r| r.get(0))?;
    add_row(connection, "database_principals", &[&name, &next, &"E", &"EXTERNAL_USER"])
}

pub fn user(connection: &Connection, name: &str) -> Result<Option<User>, SqlError> {
    let stored = stored_view(connection, "database_principals")?;
    let sql = format!("SELECT c2 FROM {stored} WHERE c1 = ?1");
    Ok(connection.query_row(&sql, [name], |row| row.get(0)).optional()?)
}

pub fn grant(connection: &Connection, permissions: &[Permission], on: &Name, to: &[String]) -> Result<(), SqlError> {
    let (object, kind, _) = catalog::look_up(connection, on)?.ok_or_else(|| not_found("object", &on.name))?;
    let is_procedure = kind == "P";
    if let Some(other) = permissions.iter().find(|of| (**of == Permission::Execute) != is_procedure) {
        let message = format!("Granted or revoked privilege {} is not compatible with object.", other.name());
        return Err(SqlError::new(4606, 16, message));
    }
    for name in to {
        let user = user(connection, name)?.ok_or_else(|| not_found("user", name))?;
        for permission in permissions {
            if has(connection, user, Some(*permission), object)? {
                continue;
            }
            let row: [&dyn rusqlite::ToSql; 6] = [&1, &object, &0, &user, &permission.name(), &"G"];
            add_row(connection, "database_permissions", &row)?;
        }
    }
    Ok(())
}

fn not_found(kind: &str, name: &str) -> SqlError {
    let message = format!("Cannot find the {kind} '{name}', because it does not exist or you do not have permission.");
    SqlError::new(15151, 16, message)
}

/// Whether a user has a permission for an object, or any at all: without one, it is not to be seen.
pub fn has(connection: &Connection, user: User, permission: Option<Permission>, object: i64) -> Result<bool, SqlError> {
    let stored = stored_view(connection, "database_permissions")?;
    let sql = format!("SELECT 1 FROM {stored} WHERE c2 = ?1 AND c4 = ?2 AND (?3 IS NULL OR c5 = ?3)");
    let name = permission.map(Permission::name);
    Ok(connection.prepare_cached(&sql)?.exists(params![object, user, name])?)
}

/// For one who may not. `object`: schema and name.
pub fn denied(permission: Permission, object: (&str, &str), database: &str) -> SqlError {
    let (schema, name) = object;
    let message = format!(
        "The {} permission was denied on the object '{name}', database '{database}', schema '{schema}'.",
        permission.name()
    );
    SqlError { state: 5, ..SqlError::new(229, 14, message) }
}

/// What no user may, since it cannot be granted here. The server has further errors for further statements.
pub fn no_definitions(makes_table: bool, database: &str) -> SqlError {
    if makes_table {
        return SqlError::new(262, 14, format!("CREATE TABLE permission denied in database '{database}'."));
    }
    SqlError::new(15247, 16, "User does not have permission to perform this action.")
}
