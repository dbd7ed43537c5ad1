import com.microsoft.sqlserver.jdbc.SQLServerBulkCopy;
import com.microsoft.sqlserver.jdbc.SQLServerBulkCopyOptions;
import com.microsoft.sqlserver.jdbc.SQLServerDataTable;
import com.microsoft.sqlserver.jdbc.SQLServerPreparedStatement;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Objects;

/**
 * Says to a server what Microsoft's driver says to one, and ends at the first difference.
 * Arguments: the port without encryption, the port with, and the file of its certificate.
 */
public class Witness {
    public static void main(String[] arguments) throws Exception {
        String plain = url(arguments[0], "encrypt=false");
        String encrypted = url(arguments[1], "encrypt=true;trustServerCertificate=true");
        String strict = url(arguments[1], "encrypt=strict;serverCertificate=" + arguments[2]);
        logins(plain, encrypted, strict);
        try (Connection connection = DriverManager.getConnection(plain)) {
            statements(connection);
            values(connection);
            errors(connection);
            transactions(connection);
            batches(connection);
            bulk(connection);
            tables(connection);
            cancelled(connection, plain);
        }
        try (Connection connection = DriverManager.getConnection(encrypted)) {
            statements(connection);
        }
    }

    static String url(String port, String more) {
        return "jdbc:sqlserver://127.0.0.1:" + port + ";databaseName=streaming;user=millrace;password={Str0ng;enough};loginTimeout=10;" + more;
    }

    static void same(Object expected, Object found) {
        if (!Objects.equals(expected, found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }

    interface Work {
        void run() throws Exception;
    }

    static void refused(int number, Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException e) {
            same(number, e.getErrorCode());
            return;
        }
        throw new AssertionError("not refused with " + number);
    }

    static Object one(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query)) {
            same(true, rows.next());
            return rows.getObject(1);
        }
    }

    static void run(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(text);
        }
    }

    static void logins(String... urls) throws Exception {
        for (String url : urls) {
            try (Connection connection = DriverManager.getConnection(url)) {
                same(1, one(connection, "SELECT 1 AS [one]"));
                same("streaming", connection.getCatalog());
                same(true, connection.isValid(5));
            } catch (SQLException e) {
                throw new AssertionError(url, e);
            }
            refused(18456, () -> DriverManager.getConnection(url.replace("Str0ng", "guessed")).close());
        }
        refused(4060, () -> DriverManager.getConnection(urls[0].replace("=streaming", "=other")).close());
    }

    static void statements(Connection connection) throws Exception {
        run(connection, "DROP TABLE IF EXISTS dbo.s; CREATE TABLE dbo.s ([id] int NOT NULL IDENTITY(1,1) PRIMARY KEY, [name] nvarchar(20) NULL)");
        try (Statement statement = connection.createStatement()) {
            same(2, statement.executeUpdate("INSERT INTO dbo.s ([name]) VALUES (N'é'), (NULL)"));
            same(1, statement.executeUpdate("UPDATE dbo.s SET [name] = N'b' WHERE [name] IS NULL"));
            same(true, statement.execute("SELECT [id], [name] FROM dbo.s ORDER BY [id]; DELETE FROM dbo.s WHERE [id] = 1; SELECT COUNT(*) AS [n] FROM dbo.s"));
            try (ResultSet rows = statement.getResultSet()) {
                same("name", rows.getMetaData().getColumnName(2));
                same("nvarchar", rows.getMetaData().getColumnTypeName(2));
                same(20, rows.getMetaData().getPrecision(2));
                same(true, rows.getMetaData().isAutoIncrement(1));
                same(true, rows.next());
                same(1, rows.getInt(1));
                same("é", rows.getString(2));
                same(true, rows.next());
                same(false, rows.next());
            }
            same(false, statement.getMoreResults());
            same(1, statement.getUpdateCount());
            same(true, statement.getMoreResults());
            try (ResultSet rows = statement.getResultSet()) {
                same(true, rows.next());
                same(1, rows.getInt(1));
            }
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT [name] FROM dbo.s WHERE [id] = ? AND [name] = ?")) {
            for (int round = 0; round < 4; round++) {
                statement.setInt(1, 2);
                statement.setString(2, "B");
                try (ResultSet rows = statement.executeQuery()) {
                    same(true, rows.next());
                    same("b", rows.getString(1));
                    same(false, rows.next());
                }
            }
        }
        String long_text = "0123456789".repeat(20_000);
        try (PreparedStatement statement = connection.prepareStatement("SELECT ? AS [long]")) {
            statement.setString(1, long_text);
            try (ResultSet rows = statement.executeQuery()) {
                same(true, rows.next());
                same(long_text, rows.getString(1));
            }
        }
    }

    static void values(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.v ([bit] bit, [tiny] tinyint, [big] bigint, [real] real, [float] float, [dec] decimal(20,4), "
            + "[money] money, [day] date, [time] time(7), [dt2] datetime2(7), [dto] datetimeoffset(7), [dt] datetime, [sdt] smalldatetime, "
            + "[c] char(3), [vb] varbinary(max), [id] uniqueidentifier, [x] xml)");
        Object[] values = {
            true, (short) 200, Long.MIN_VALUE, 0.5f, 0.1, new BigDecimal("-1234567890123456.7891"), new BigDecimal("-12.3400"),
            java.sql.Date.valueOf("2024-02-29"), "23:59:59.9999999", Timestamp.valueOf("2024-02-29 23:59:59.9999999"),
            microsoft.sql.DateTimeOffset.valueOf(Timestamp.valueOf("2024-02-29 21:59:59.9999999"), 120),
            Timestamp.valueOf("2024-02-29 12:00:00.003"), Timestamp.valueOf("2024-02-29 12:01:00"), "ab ", new byte[] {0, 1, -1},
            "00112233-4455-6677-8899-AABBCCDDEEFF", "<a>é</a>",
        };
        String marks = "?, ".repeat(values.length - 1) + "?";
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO dbo.v VALUES (" + marks + ")")) {
            for (int at = 0; at < values.length; at++) {
                statement.setObject(at + 1, values[at]);
            }
            same(1, statement.executeUpdate());
            int[] types = {Types.BIT, Types.TINYINT, Types.BIGINT, Types.REAL, Types.DOUBLE, Types.DECIMAL, Types.DECIMAL, Types.DATE,
                Types.TIME, Types.TIMESTAMP, microsoft.sql.Types.DATETIMEOFFSET, Types.TIMESTAMP, Types.TIMESTAMP, Types.CHAR,
                Types.VARBINARY, Types.NCHAR, Types.NVARCHAR};
            for (int at = 0; at < values.length; at++) {
                statement.setNull(at + 1, types[at]);
            }
            same(1, statement.executeUpdate());
        }
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT * FROM dbo.v")) {
            same(true, rows.next());
            for (int at = 0; at < values.length; at++) {
                if (values[at] instanceof byte[] bytes) {
                    same(java.util.Arrays.toString(bytes), java.util.Arrays.toString(rows.getBytes(at + 1)));
                } else if (values[at] instanceof String text) {
                    same(text, rows.getString(at + 1));
                } else {
                    same(values[at], rows.getObject(at + 1));
                }
            }
            same(true, rows.next());
            for (int at = 0; at < values.length; at++) {
                same(null, rows.getObject(at + 1));
            }
        }
    }

    static void errors(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.e ([id] int NOT NULL PRIMARY KEY)");
        run(connection, "INSERT INTO dbo.e VALUES (1)");
        refused(2627, () -> run(connection, "INSERT INTO dbo.e VALUES (1)"));
        refused(208, () -> run(connection, "SELECT * FROM dbo.nothing"));
        refused(102, () -> run(connection, "SELECT * FRM dbo.e"));
        refused(515, () -> {
            try (PreparedStatement statement = connection.prepareStatement("INSERT INTO dbo.e VALUES (?)")) {
                statement.setNull(1, Types.INTEGER);
                statement.executeUpdate();
            }
        });
        same(1, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.e"));
    }

    static void transactions(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.x ([id] int NOT NULL)");
        connection.setAutoCommit(false);
        run(connection, "INSERT INTO dbo.x VALUES (1)");
        Savepoint here = connection.setSavepoint("here");
        run(connection, "INSERT INTO dbo.x VALUES (2)");
        connection.rollback(here);
        run(connection, "INSERT INTO dbo.x VALUES (3)");
        connection.commit();
        run(connection, "DELETE FROM dbo.x");
        connection.rollback();
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        same(2, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.x"));
        connection.commit();
        connection.setAutoCommit(true);
        same(4, one(connection, "SELECT SUM([id]) AS [n] FROM dbo.x"));
    }

    static void batches(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.b ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(20))");
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO dbo.b VALUES (?, ?)")) {
            for (int id = 0; id < 5; id++) {
                statement.setInt(1, id);
                statement.setString(2, "n" + id);
                statement.addBatch();
            }
            same("[1, 1, 1, 1, 1]", java.util.Arrays.toString(statement.executeBatch()));
        }
        same(5, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.b"));
    }

    static void bulk(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.l ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, [amount] decimal(10,2) NULL, "
            + "[at] datetime2(7) NULL, [long] nvarchar(max) NULL, [data] varbinary(max) NULL, CONSTRAINT [CK_l] CHECK ([id] >= 0))");
        run(connection, "CREATE TABLE dbo.copy ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, [amount] decimal(10,2) NULL, "
            + "[at] datetime2(7) NULL, [long] nvarchar(max) NULL, [data] varbinary(max) NULL)");
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO dbo.copy VALUES (?, ?, ?, ?, ?, ?)")) {
            for (int id = 0; id < 200; id++) {
                statement.setInt(1, id);
                statement.setString(2, id % 7 == 0 ? null : "n" + id);
                statement.setBigDecimal(3, new BigDecimal(id + ".25"));
                statement.setTimestamp(4, Timestamp.valueOf("2024-02-29 23:59:59.9999999"));
                statement.setString(5, "long".repeat(id));
                statement.setBytes(6, id % 5 == 0 ? null : new byte[id]);
                statement.execute();
            }
        }
        try (Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT * FROM dbo.copy");
            SQLServerBulkCopy copy = new SQLServerBulkCopy(connection)) {
            SQLServerBulkCopyOptions options = new SQLServerBulkCopyOptions();
            options.setCheckConstraints(true);
            options.setTableLock(true);
            options.setKeepNulls(true);
            copy.setBulkCopyOptions(options);
            copy.setDestinationTableName("dbo.l");
            copy.writeToServer(rows);
        }
        same(200, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.l AS [a] INNER JOIN dbo.copy AS [b] ON [a].[id] = [b].[id] "
            + "AND [a].[amount] = [b].[amount] AND [a].[at] = [b].[at] AND [a].[long] = [b].[long]"));
        same(29, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.l WHERE [name] IS NULL"));
        refused(2627, () -> {
            try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("SELECT * FROM dbo.copy");
                SQLServerBulkCopy copy = new SQLServerBulkCopy(connection)) {
                copy.setDestinationTableName("dbo.l");
                copy.writeToServer(rows);
            }
        });
        same(200, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.l"));
    }

    static void tables(Connection connection) throws Exception {
        run(connection, "CREATE TABLE dbo.taken ([id] int NOT NULL, [name] nvarchar(20) NULL, [amount] decimal(10,2) NULL)");
        SQLServerDataTable table = new SQLServerDataTable();
        table.addColumnMetadata("id", Types.INTEGER);
        table.addColumnMetadata("name", Types.NVARCHAR);
        table.addColumnMetadata("amount", Types.DECIMAL);
        table.addRow(1, "one", new BigDecimal("1.50"));
        table.addRow(2, null, null);
        try (SQLServerPreparedStatement statement = (SQLServerPreparedStatement) connection.prepareStatement("EXECUTE dbo.take ?")) {
            statement.setStructured(1, "dbo.row_type", table);
            statement.execute();
        }
        same(2, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.taken"));
        try (var statement = (com.microsoft.sqlserver.jdbc.SQLServerCallableStatement) connection.prepareCall("{call dbo.take(?)}")) {
            statement.setStructured(1, "dbo.row_type", table);
            statement.execute();
        }
        same(new BigDecimal("3.00"), one(connection, "SELECT SUM([amount]) AS [n] FROM dbo.taken"));
    }

    static void cancelled(Connection connection, String url) throws Exception {
        connection.setAutoCommit(false);
        run(connection, "INSERT INTO dbo.x VALUES (7)");
        try (Connection other = DriverManager.getConnection(url); Statement statement = other.createStatement()) {
            statement.setQueryTimeout(1);
            long since = System.nanoTime();
            try {
                statement.execute("DELETE FROM dbo.x");
                throw new AssertionError("it did not wait");
            } catch (java.sql.SQLTimeoutException e) {
                same(true, System.nanoTime() - since < 5_000_000_000L);
            }
            same(2, one(other, "SELECT COUNT(*) AS [n] FROM dbo.x"));
            Statement waiting = other.createStatement();
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    waiting.cancel();
                } catch (Exception e) {
                    throw new AssertionError(e);
                }
            });
            canceller.start();
            try {
                waiting.execute("DELETE FROM dbo.x");
                throw new AssertionError("it was not cancelled");
            } catch (SQLException e) {
                same("HY008", e.getSQLState());
            }
            canceller.join();
            same(2, one(other, "SELECT COUNT(*) AS [n] FROM dbo.x"));
        }
        connection.rollback();
        connection.setAutoCommit(true);
        same(2, one(connection, "SELECT COUNT(*) AS [n] FROM dbo.x"));
    }
}
