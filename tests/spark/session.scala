// Spark as a reader and writer of Delta tables, for the tests. It takes commands on its standard input, one a line:
//
//   sql <statement>     runs it
//   rows <path>         prints the table's rows as JSON, one a line
//   count <path> <condition>
//
// and answers each with a last line "ok", or "error: <first line of the reason>".

import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.functions.{col, struct, to_json}
import org.apache.spark.sql.types.DecimalType

val spark = SparkSession.builder()
  .master("local[1]")
  .config("spark.ui.enabled", "false")
  .config("spark.driver.host", "127.0.0.1")
  .config("spark.driver.bindAddress", "127.0.0.1")
  .config("spark.sql.session.timeZone", "UTC")
  .config("spark.sql.shuffle.partitions", "1")
  .config("spark.sql.warehouse.dir", System.getProperty("java.io.tmpdir"))
  .config("spark.databricks.delta.snapshotPartitions", "1")
  .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
  .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
  .getOrCreate()
spark.sparkContext.setLogLevel("ERROR")

val json = scala.collection.JavaConverters.mapAsJavaMap(Map(
  "ignoreNullFields" -> "false",
  "timestampFormat" -> "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'",
  "timestampNTZFormat" -> "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"))

def rows(path: String): Array[String] = {
  val table = spark.read.format("delta").load(path)
  val columns = table.schema.fields.map { field =>
    val column = col(s"`${field.name}`")
    // As text: a reader of JSON takes numbers for doubles.
    if (field.dataType.isInstanceOf[DecimalType]) column.cast("string").as(field.name) else column
  }
  table.select(to_json(struct(columns.toSeq: _*), json)).collect().map(_.getString(0))
}

def answer(command: String): Unit = command.split(" ", 2) match {
  case Array("sql", statement) => spark.sql(statement).collect()
  case Array("rows", path) => rows(path).foreach(println)
  case Array("count", rest) =>
    val Array(path, condition) = rest.split(" ", 2)
    println(spark.read.format("delta").load(path).where(condition).count())
  case _ => throw new IllegalArgumentException(s"no such command: $command")
}

println("ok")
Iterator.continually(scala.io.StdIn.readLine()).takeWhile(_ != null).foreach { command =>
  try { answer(command); println("ok") }
  catch { case e: Throwable => println("error: " + String.valueOf(e.getMessage).linesIterator.nextOption().getOrElse("")) }
}
spark.stop()
