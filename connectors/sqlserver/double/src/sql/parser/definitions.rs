//! Definitions: what there is to be, and who may do what with it.

use super::*;

impl Parser {
    pub(super) fn create(&mut self) -> Parsed<Statement> {
        let start = self.at;
        self.expect("CREATE")?;
        if self.word("SCHEMA") {
            return self.identifier().map(Statement::CreateSchema);
        }
        if self.word("USER") {
            return self.user();
        }
        if self.words(&["PARTITION", "FUNCTION"]) {
            return self.partition_function(start);
        }
        if self.words(&["PARTITION", "SCHEME"]) {
            return self.partition_scheme(start);
        }
        if self.word("TYPE") {
            self.defining = "CREATE TYPE";
            let name = self.name()?;
            self.expect("AS")?;
            self.expect("TABLE")?;
            let table = self.in_parentheses(Self::table)?;
            return Ok(Statement::CreateType { name, table, text: self.written(start) });
        }
        if self.word("TABLE") {
            self.defining = "CREATE TABLE";
            let name = self.name()?;
            let mut table = self.in_parentheses(Self::table)?;
            table.on = self.space()?;
            return Ok(Statement::CreateTable { name, table, text: self.written(start) });
        }
        if self.word("VIEW") {
            return self.view(start);
        }
        self.defining = "CREATE INDEX";
        self.index(start)
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/create-user-transact-sql>
    fn user(&mut self) -> Parsed<Statement> {
        let name = self.identifier()?;
        for word in ["FROM", "EXTERNAL", "PROVIDER"] {
            self.expect(word)?;
        }
        Ok(Statement::CreateUser(name))
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/create-partition-function-transact-sql>
    fn partition_function(&mut self, start: usize) -> Parsed<Statement> {
        let name = self.identifier()?;
        let types = self.in_parentheses(|p| p.list(Self::partition_type))?;
        let [of] = types[..] else {
            let message = "Can not create RANGE partition function with multiple parameter types.";
            return Err(SqlError::new(7703, 16, message));
        };
        self.expect("AS")?;
        self.expect("RANGE")?;
        let _ = self.word("LEFT") || self.word("RIGHT");
        self.expect("FOR")?;
        self.expect("VALUES")?;
        let none = |p: &Self| p.is_sign(")");
        let boundaries = self.in_parentheses(|p| if none(p) { Ok(Vec::new()) } else { p.list(Self::expr) })?;
        let function = PartitionFunction { of, boundaries };
        Ok(Statement::CreatePartitionFunction { name, function, text: self.written(start) })
    }

    /// Any but those of values that may be long, and those that the server numbers itself.
    fn partition_type(&mut self) -> Parsed<Type> {
        let name = self.peek().map(Token::shown).unwrap_or_default();
        let invalid = || SqlError::new(7704, 16, format!("The type '{name}' is not valid for this operation."));
        match self.data_type() {
            Ok(of) if of == Type::Xml || of.dimensions().0 < 0 => Err(invalid()),
            Err(error) if error.number == 2715 => Err(SqlError { state: 2, ..invalid() }),
            other => other,
        }
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/create-partition-scheme-transact-sql>
    fn partition_scheme(&mut self, start: usize) -> Parsed<Statement> {
        let name = self.identifier()?;
        self.expect("AS")?;
        self.expect("PARTITION")?;
        let function = self.identifier()?;
        let all = self.word("ALL");
        self.expect("TO")?;
        let filegroups = self.in_parentheses(|p| p.list(Self::identifier))?;
        let scheme = PartitionScheme { function, all, filegroups };
        Ok(Statement::CreatePartitionScheme { name, scheme, text: self.written(start) })
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/grant-object-permissions-transact-sql>
    pub(super) fn grant(&mut self) -> Parsed<Statement> {
        self.expect("GRANT")?;
        let permissions = self.list(Self::permission)?;
        self.expect("ON")?;
        let on = self.name()?;
        self.expect("TO")?;
        Ok(Statement::Grant { permissions, on, to: self.list(Self::identifier)? })
    }

    fn permission(&mut self) -> Parsed<Permission> {
        let found = Permission::ALL.into_iter().find(|permission| self.word(permission.name()));
        found.ok_or_else(|| self.wrong())
    }

    /// Where a table or an index is put, if it is said.
    fn space(&mut self) -> Parsed<Option<Space>> {
        if self.defining == "CREATE TYPE" || !self.word("ON") {
            return Ok(None);
        }
        let name = self.identifier()?;
        let columns = if self.is_sign("(") { self.in_parentheses(|p| p.list(Self::identifier))? } else { Vec::new() };
        Ok(Some(Space { name, columns }))
    }

    /// How an index is compressed, which changes nothing here. Of what else there is, nothing is known.
    /// <https://learn.microsoft.com/sql/t-sql/statements/create-index-transact-sql>
    /// <https://learn.microsoft.com/sql/t-sql/statements/create-columnstore-index-transact-sql>
    fn index_options(&mut self, kind: IndexKind) -> Parsed<()> {
        if !self.word("WITH") {
            return Ok(());
        }
        let said = self.in_parentheses(|p| p.list(|p| p.compression(kind)))?;
        if said.len() > 1 {
            let message = "The DATA_COMPRESSION option was specified more than once for the table, or for at least one of its \
                           partitions if the table is partitioned.";
            return Err(SqlError::new(7711, 16, message));
        }
        Ok(())
    }

    fn compression(&mut self, kind: IndexKind) -> Parsed<()> {
        const OPTION: &str = "DATA_COMPRESSION";
        if !self.is_word(OPTION) || self.defining == "CREATE TYPE" {
            let (option, statement) = (self.next()?.shown(), self.defining);
            return Err(SqlError::new(155, 15, format!("'{option}' is not a recognized {statement} option.")));
        }
        self.expect(OPTION)?;
        self.expect_sign("=")?;
        let words: &[&str] = match kind {
            IndexKind::Columnstore => &["COLUMNSTORE", "COLUMNSTORE_ARCHIVE"],
            _ => &["NONE", "ROW", "PAGE"],
        };
        if words.iter().any(|word| self.word(word)) { Ok(()) } else { Err(self.wrong()) }
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/create-view-transact-sql>
    fn view(&mut self, start: usize) -> Parsed<Statement> {
        if start > 0 {
            let message = "'CREATE VIEW' must be the first statement in a query batch.";
            return Err(SqlError::new(111, 15, message));
        }
        let name = self.name()?;
        self.expect("AS")?;
        let query = Box::new(self.query()?);
        let text = self.written(start);
        self.sign(";");
        if self.at_end() { Ok(Statement::CreateView { name, query, text }) } else { Err(self.wrong()) }
    }

    /// What was read since, as a text of its own: definitions are kept as they were said.
    fn written(&self, start: usize) -> String {
        self.tokens[start..self.at].iter().map(write).collect::<Vec<_>>().join(" ")
    }

    fn index(&mut self, start: usize) -> Parsed<Statement> {
        let unique = self.word("UNIQUE");
        let clustered = self.clustering();
        let columnstore = self.word("COLUMNSTORE");
        self.expect("INDEX")?;
        let name = Some(self.identifier()?);
        self.expect("ON")?;
        let on = self.name()?;
        let columns = if columnstore && !self.is_sign("(") { Vec::new() } else { self.key_columns()? };
        let condition = self.condition()?;
        let kind = match (columnstore, unique) {
            (true, false) => IndexKind::Columnstore,
            (true, true) => return Err(syntax("COLUMNSTORE")),
            (false, true) => IndexKind::UniqueIndex,
            (false, false) => IndexKind::Plain,
        };
        self.index_options(kind)?;
        let on_space = self.space()?;
        let index = Index { name, kind, clustered: clustered == Some(true), columns, condition, on: on_space };
        Ok(Statement::CreateIndex { index, on, text: self.written(start) })
    }

    fn clustering(&mut self) -> Option<bool> {
        if self.word("CLUSTERED") {
            return Some(true);
        }
        self.word("NONCLUSTERED").then_some(false)
    }

    pub(super) fn direction(&mut self) -> bool {
        let descending = self.word("DESC");
        let _ = descending || self.word("ASC");
        descending
    }

    fn key_columns(&mut self) -> Parsed<Vec<(String, bool)>> {
        self.in_parentheses(|p| {
            p.list(|p| {
                let name = p.identifier()?;
                Ok((name, p.direction()))
            })
        })
    }

    pub(super) fn table(&mut self) -> Parsed<Table> {
        let mut table = Table::default();
        loop {
            self.table_part(&mut table)?;
            if !self.sign(",") {
                return Ok(table);
            }
        }
    }

    fn table_part(&mut self, table: &mut Table) -> Parsed<()> {
        let constraint = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
        if self.is_word("PRIMARY") || self.is_word("UNIQUE") {
            let key = self.key(constraint, None)?;
            table.keys.push(key);
            return Ok(());
        }
        if self.word("CHECK") {
            let condition = self.in_parentheses(Self::expr)?;
            table.checks.push(Check { name: constraint, column: None, condition });
            return Ok(());
        }
        if constraint.is_some() {
            return Err(self.wrong());
        }
        if self.word("INDEX") {
            let name = Some(self.identifier()?);
            let unique = self.word("UNIQUE");
            let clustered = self.clustering();
            let columnstore = self.word("COLUMNSTORE");
            let columns = if columnstore && !self.is_sign("(") { Vec::new() } else { self.key_columns()? };
            let kind = match (columnstore, unique) {
                (true, _) => IndexKind::Columnstore,
                (_, true) => IndexKind::UniqueIndex,
                _ => IndexKind::Plain,
            };
            let condition = self.condition()?;
            self.index_options(kind)?;
            let on = self.space()?;
            table.keys.push(Index { name, kind, clustered: clustered == Some(true), columns, condition, on });
            return Ok(());
        }
        self.column(table)
    }

    fn key(&mut self, name: Option<String>, column: Option<&str>) -> Parsed<Index> {
        let primary = self.words(&["PRIMARY", "KEY"]);
        if !primary {
            self.expect("UNIQUE")?;
        }
        let clustered = self.clustering().unwrap_or(primary);
        let columns = match column {
            Some(column) if !self.is_sign("(") => vec![(column.to_string(), false)],
            _ => self.key_columns()?,
        };
        let kind = if primary { IndexKind::PrimaryKey } else { IndexKind::UniqueConstraint };
        self.index_options(kind)?;
        Ok(Index { name, kind, clustered, columns, condition: None, on: self.space()? })
    }

    fn column(&mut self, table: &mut Table) -> Parsed<()> {
        let name = self.identifier()?;
        let is_computed = self.word("AS");
        let of = if is_computed { Type::Null } else { self.data_type()? };
        let mut column =
            Column { name, of, collation: None, nullable: None, identity: None, default: None, computed: None };
        if is_computed {
            column.computed = Some(self.in_parentheses(Self::expr)?);
            self.word("PERSISTED");
            table.columns.push(column);
            return Ok(());
        }
        while self.column_part(&mut column, table)? {}
        table.columns.push(column);
        Ok(())
    }

    fn column_part(&mut self, column: &mut Column, table: &mut Table) -> Parsed<bool> {
        if self.word("COLLATE") {
            column.collation = Some(self.identifier()?);
        } else if self.word("NULL") {
            column.nullable = Some(true);
        } else if self.words(&["NOT", "NULL"]) {
            column.nullable = Some(false);
        } else if self.word("IDENTITY") {
            column.nullable = Some(false);
            column.identity = Some((1, 1));
            if self.is_sign("(") {
                column.identity = Some(self.in_parentheses(|p| {
                    let seed = p.integer()?;
                    p.expect_sign(",")?;
                    Ok((seed, p.integer()?))
                })?);
            }
        } else {
            return self.column_constraint(column, table);
        }
        Ok(true)
    }

    fn column_constraint(&mut self, column: &mut Column, table: &mut Table) -> Parsed<bool> {
        let constraint = if self.word("CONSTRAINT") { Some(self.identifier()?) } else { None };
        if self.word("DEFAULT") {
            column.default = Some(self.primary()?);
        } else if self.is_word("PRIMARY") || self.is_word("UNIQUE") {
            let key = self.key(constraint, Some(&column.name))?;
            table.keys.push(key);
        } else if self.word("CHECK") {
            let condition = self.in_parentheses(Self::expr)?;
            table.checks.push(Check { name: constraint, column: Some(column.name.clone()), condition });
        } else if constraint.is_some() {
            return Err(self.wrong());
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// <https://learn.microsoft.com/sql/t-sql/statements/alter-table-transact-sql>
    pub(super) fn alter_table(&mut self) -> Parsed<Statement> {
        self.expect("ALTER")?;
        self.expect("TABLE")?;
        let table = self.name()?;
        self.expect("SET")?;
        self.in_parentheses(|p| {
            p.expect("LOCK_ESCALATION")?;
            p.expect_sign("=")?;
            let to = ["TABLE", "DISABLE", "AUTO"].into_iter().position(|word| p.word(word));
            Ok(Statement::EscalateLocks { table, to: to.ok_or_else(|| p.wrong())? as i64 })
        })
    }

    pub(super) fn drop_table(&mut self) -> Parsed<Statement> {
        self.expect("DROP")?;
        self.expect("TABLE")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        Ok(Statement::DropTable { names: self.list(Self::name)?, if_exists })
    }
}

/// A token as it would be written again.
fn write(token: &Token) -> String {
    match token {
        Token::Quoted(name) => format!("[{}]", name.replace(']', "]]")),
        Token::Text { value, unicode } => format!("{}'{}'", if *unicode { "N" } else { "" }, value.replace('\'', "''")),
        Token::Bytes(bytes) => format!("0x{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        other => other.shown(),
    }
}
