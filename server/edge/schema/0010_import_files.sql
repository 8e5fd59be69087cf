-- What a job shows of its file, where that file is, and which workers can read it.
--
-- folder is the id of a folder of files (it lies in the folder itself): a worker is given jobs of files only when it looks into the
-- same folder. Several hosts that share a folder read the same id.

create domain imports.file_name as text check (length(value) between 1 and 200);
alter table imports.batch_processing_queue
    add column file_name imports.file_name,
    add column folder text;
alter table imports.batch_processing_workers add column folder text;

create index queue_files on imports.batch_processing_queue (folder) where status = 'pending' and folder is not null;

-- Whether a file in the folder is still wanted is asked by its name.
create index queue_file on imports.batch_processing_queue (file) where file is not null;

-- What failed or was cancelled is counted and listed by its status; completed jobs, by far the most, never enter.
create index queue_unfinished on imports.batch_processing_queue (status, id) where status in ('failed', 'cancelled');

grant insert (file_name, folder) on imports.batch_processing_queue to batchcast_owner;

-- Completed jobs are told from the statistics of the days, less what housekeeping has removed of either since.
create table imports.removed (
    single    boolean primary key default true check (single),
    completed bigint not null
);
insert into imports.removed (completed)
select (select coalesce(sum(completed), 0) from imports.stats_shard)
    - (select count(*) from imports.batch_processing_queue where status = 'completed');

alter table imports.removed enable row level security;
create policy service on imports.removed to batchcast_worker using (true);
grant select, update on imports.removed to batchcast_worker;
