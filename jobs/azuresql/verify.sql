-- Is an event missing, there twice, or out of order? (`millrace verify job.sql` says the same from outside, and more.)

-- A minute each: events stored, and how long they took from the event hub.
SELECT DATEADD(minute, DATEDIFF(minute, 0, [StoredAt]), 0) AS [minute], COUNT_BIG(*) AS [events],
       AVG(CAST(DATEDIFF_BIG(millisecond, [EnqueuedAt], [StoredAt]) AS float)) AS [mean_ms],
       MAX(DATEDIFF_BIG(millisecond, [EnqueuedAt], [StoredAt])) AS [worst_ms]
FROM [dbo].[rawdata]
GROUP BY DATEADD(minute, DATEDIFF(minute, 0, [StoredAt]), 0)
ORDER BY [minute];

-- Copies: none. The key does not see those of one event in two partitions; this does.
SELECT [EventId], COUNT_BIG(*) AS [copies] FROM [dbo].[rawdata] GROUP BY [EventId] HAVING COUNT_BIG(*) > 1;

-- Devices with gaps in their numbers: none.
SELECT [DeviceId], MAX([DeviceSequenceNumber]) - MIN([DeviceSequenceNumber]) + 1 - COUNT_BIG(*) AS [missing]
FROM [dbo].[rawdata]
GROUP BY [DeviceId]
HAVING MAX([DeviceSequenceNumber]) - MIN([DeviceSequenceNumber]) + 1 <> COUNT_BIG(*);
