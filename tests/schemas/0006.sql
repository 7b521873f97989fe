BEGIN;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE queues (
	name VARCHAR(64) NOT NULL, 
	paused BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE tasks (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	task_type VARCHAR(64) NOT NULL, 
	queue VARCHAR(64) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	priority INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	payload TEXT NOT NULL, 
	result TEXT, 
	error TEXT, 
	failure_reason VARCHAR(16), 
	progress TEXT, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	max_attempts INTEGER NOT NULL, 
	timeout_seconds FLOAT NOT NULL, 
	lease INTEGER DEFAULT '0' NOT NULL, 
	lease_expires_at BIGINT, 
	worker_id VARCHAR(64), 
	cancel_requested_at BIGINT, 
	created_at BIGINT NOT NULL, 
	scheduled_at BIGINT, 
	started_at BIGINT, 
	finished_at BIGINT, 
	expires_at BIGINT, 
	unique_key VARCHAR(255), 
	idempotency_key VARCHAR(255), 
	request_hash VARCHAR(64), 
	concurrency_key VARCHAR(255), 
	parent_id INTEGER, 
	tags TEXT DEFAULT '' NOT NULL, 
	metadata TEXT, 
	traceparent VARCHAR(64), 
	deaths INTEGER DEFAULT '0' NOT NULL, 
	runs_alone BOOLEAN DEFAULT 0 NOT NULL, retry TEXT, retry_for_seconds FLOAT, retry_until BIGINT, fingerprint VARCHAR(16), resolved_at BIGINT, resolution TEXT, tenant VARCHAR(64) DEFAULT '' NOT NULL, 
	CONSTRAINT ck_tasks_failed_has_reason CHECK ((status = 'failed') = (failure_reason IS NOT NULL)), 
	CONSTRAINT ck_tasks_running_has_lease CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)), 
	CONSTRAINT ck_tasks_terminal_has_end CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)), 
	CONSTRAINT ck_tasks_completed_has_result CHECK (status <> 'completed' OR result IS NOT NULL), 
	CONSTRAINT ck_tasks_status CHECK (status IN ('pending', 'scheduled', 'retrying', 'blocked', 'running', 'completed', 'failed', 'cancelled')), 
	CONSTRAINT ck_tasks_delayed_has_moment CHECK (status NOT IN ('scheduled', 'retrying') OR scheduled_at IS NOT NULL), 
	CONSTRAINT ck_tasks_attempts_within_limit CHECK (attempts BETWEEN 0 AND max_attempts), 
	CONSTRAINT fk_tasks_parent_id FOREIGN KEY(parent_id) REFERENCES tasks (id) ON DELETE SET NULL
);
CREATE TABLE workers (
	id VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER NOT NULL, 
	queues TEXT NOT NULL, 
	task_types TEXT NOT NULL, 
	slots INTEGER NOT NULL, 
	running TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	started_at BIGINT NOT NULL, 
	beat_at BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE checkpoints (
	task_id INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (task_id, seq), 
	CONSTRAINT fk_checkpoints_task_id FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE TABLE task_attempts (
	task_id INTEGER NOT NULL, 
	lease INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	worker_id VARCHAR(64), 
	started_at BIGINT NOT NULL, 
	finished_at BIGINT NOT NULL, 
	error TEXT, 
	delay_seconds FLOAT, 
	PRIMARY KEY (task_id, lease), 
	CONSTRAINT fk_task_attempts_task_id FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE TABLE files (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	size INTEGER NOT NULL, 
	content_type VARCHAR(127) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, tenant VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE task_files (
	task_id INTEGER NOT NULL, 
	file_id VARCHAR(32) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	lease INTEGER NOT NULL, 
	PRIMARY KEY (task_id, file_id), 
	CONSTRAINT ck_task_files_role CHECK (role IN ('input', 'output', 'temporary')), 
	CONSTRAINT fk_task_files_task_id FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE, 
	CONSTRAINT fk_task_files_file_id FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE TABLE breakers (
	name VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	failures INTEGER NOT NULL, 
	window_started_at BIGINT, 
	trips INTEGER NOT NULL, 
	opened_at BIGINT, 
	open_until BIGINT, 
	reason TEXT, 
	tripped_by_hand BOOLEAN NOT NULL, 
	let_through TEXT NOT NULL, 
	PRIMARY KEY (name), 
	CONSTRAINT ck_breakers_state CHECK (state IN ('closed', 'open', 'half_open')), 
	CONSTRAINT ck_breakers_open_has_moment CHECK (state = 'closed' OR opened_at IS NOT NULL)
)
 WITHOUT ROWID

;
CREATE TABLE api_keys (
	id VARCHAR(16) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	scopes TEXT NOT NULL, 
	tenant VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	last_used_at BIGINT, 
	revoked_at BIGINT, 
	PRIMARY KEY (id)
);
INSERT INTO alembic_version (version_num) VALUES ('0006');
INSERT INTO queues (name, paused) VALUES ('other', 1);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (1, 'echo', 'default', 'completed', 0, 1767323045000, '{"number":0}', '{"text":"Grüße, 世界 🚀","number":9007199254740993}', NULL, NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323045000, NULL, 1767323047750, 1767323048000, NULL, 'u0', 'key-0', '90903219e07018b36a5b0c3732281f351f9ef9a473e11d78837b606c0655f9ff', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (2, 'echo', 'default', 'failed', 0, 1767323045250, '{"number":1}', NULL, '{"type":"ValueError","message":"number 17 is no good","attempt":1,"at":"2026-01-02T03:04:08.250000Z","traceback":"Traceback (most recent call last):\n  ..."}', 'error', '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323045250, NULL, 1767323047250, 1767323048250, NULL, 'u1', 'key-1', '88f8ff30c3904674d1ffa6ab2f87e84b2bc032d5f0847428d8288444d1ba194a', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', 1767323055253, 'seen to', '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (3, 'echo', 'default', 'failed', 0, 1767323045500, '{"number":2}', NULL, '{"type":"ValueError","message":"number 18 is no good","attempt":1,"at":"2026-01-02T03:04:08.750000Z"}', 'exhausted', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323045500, NULL, 1767323047250, 1767323048750, NULL, 'u2', 'key-2', '13beb9de4ed241a69a167aba47b6a6fb2c71903a7a049e901261840578b86759', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (4, 'echo', 'default', 'failed', 0, 1767323045750, '{"number":3}', NULL, '{"type":"TimeLimitExceeded","message":"ran longer than its limit of 5 s and was stopped","attempt":1,"at":"2026-01-02T03:04:09.250000Z"}', 'timeout', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323045750, NULL, 1767323047250, 1767323049250, NULL, 'u3', 'key-3', '0578e5339f57ff5b4195c6645b477fcfee912f36dd882955f79ebd139b18def5', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, '50a3010a76c6a46d', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (5, 'echo', 'default', 'failed', 0, 1767323046000, '{"number":4}', NULL, '{"type":"Lost","message":"its runner was killed by SIGKILL","attempt":1,"at":"2026-01-02T03:04:09.750000Z"}', 'lost', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323046000, NULL, 1767323047250, 1767323049750, NULL, 'u4', 'key-4', 'ed52ab50c90f821624a25a761c96f27f9cb665308f334ebda0f2bf0f2324b5de', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 1, 0, NULL, NULL, NULL, 'ab206d7b2c3edb75', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (6, 'echo', 'default', 'retrying', 0, 1767323057250, '{"number":5}', NULL, '{"type":"ConnectionError","message":"nobody there","attempt":1,"at":"2026-01-02T03:04:10.250000Z"}', NULL, NULL, 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323046250, 1767323057250, 1767323047250, NULL, NULL, 'u5', 'key-5', '92b4e392dae0cd2eb4e8eb7f5cc12a06408cbaad95da00ca3c72c0ef41450bb9', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (7, 'echo', 'default', 'cancelled', 0, 1767323046500, '{"number":6}', NULL, '{"type":"Cancelled","message":"enough","attempt":1,"at":"2026-01-02T03:04:10.750000Z"}', NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323046500, NULL, 1767323047250, 1767323050750, NULL, 'u6', 'key-6', 'eb82a35d575ce980eb9af4d4e85b3d337407a20bd19137f2db810cfded7e4f0a', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (8, 'echo', 'default', 'running', 0, 1767323046750, '{"number":7}', NULL, NULL, NULL, NULL, 1, 3, 300.0, 2, 1767323085253, 'w-1', 1767323055253, 1767323046750, NULL, 1767323055253, NULL, NULL, 'u7', 'key-7', '7736c6a93156f9c112cc079d974e90e610a8014525ac8baa7200cb09dcd27af9', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (9, 'echo', 'default', 'scheduled', 0, 1767323071750, '{"number":8}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323047000, 1767323071750, 1767323047250, NULL, NULL, 'u8', 'key-8', '8d3def654be9cc5ad7d4af618354738d867eed873e078a1b5189db12a90dd9ca', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (10, 'copy_file', 'default', 'completed', 100, 1767317047250, '{"file_id":"1f057280f93a89a23dc086e4c09c2234"}', 'null', NULL, NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323047250, NULL, 1767323052250, 1767323052500, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (11, 'echo', 'default', 'pending', 0, 1767323047250, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323047250, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, '', NULL, NULL, 0, 0, '{"base_seconds":2.0,"ceiling_seconds":3600.0,"policy":"fixed","jitter":true}', 600.5, 1767323647750, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (12, 'echo', 'default', 'failed', 90, 1767317653252, '{}', NULL, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":3,"at":"2026-01-02T03:04:13.752000Z"}', 'poisoned', '{"percent":50}', 3, 9, 300.0, 3, NULL, 'w-1', NULL, 1767323052250, NULL, 1767323053252, 1767323053752, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 3, 0, NULL, NULL, NULL, '15e7827dff246b52', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (13, 'echo', 'other', 'cancelled', 0, 1767323053753, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, 1767323053753, 1767323053753, NULL, NULL, 1767323053753, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (15, 'echo', 'other', 'failed', 0, 1767323053753, '{}', NULL, '{"type":"Expired","message":"it had not started by expires_at","attempt":0,"at":"2026-01-02T03:04:14.753000Z"}', 'expired', NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323053753, NULL, NULL, 1767323054753, 1767323054753, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, '29d467a4f1f43734', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (16, 'echo', 'default', 'running', 80, 1767318255253, '{}', NULL, '{"type":"ValueError","message":"number 19 is no good","attempt":1,"at":"2026-01-02T03:04:15.253000Z"}', NULL, '{"percent":10}', 1, 3, 300.0, 2, 1767323085253, 'w-1', NULL, 1767323054753, NULL, 1767323055253, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', NULL, NULL, '');
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant) VALUES (17, 'echo', 'other', 'scheduled', 0, 1769915055253, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323055253, 1769915055253, NULL, NULL, 1770001455253, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '');
INSERT INTO workers (id, name, host, pid, queues, task_types, slots, running, state, started_at, beat_at) VALUES ('demo-4b04b971', 'demo', 'vm', 7579, '|default|other|', '|echo|', 4, '[]', 'running', 1767323055253, 1767323055253);
INSERT INTO checkpoints (task_id, seq, data) VALUES (6, 1, '{"done":1}');
INSERT INTO checkpoints (task_id, seq, data) VALUES (8, 1, '{"done":1}');
INSERT INTO checkpoints (task_id, seq, data) VALUES (9, 1, '{"done":1}');
INSERT INTO checkpoints (task_id, seq, data) VALUES (16, 1, '{"page":3}');
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (2, 1, 1, 'error', 'w-1', 1767323047250, 1767323048250, '{"type":"ValueError","message":"number 17 is no good","attempt":1,"at":"2026-01-02T03:04:08.250000Z","traceback":"Traceback (most recent call last):\n  ..."}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (3, 1, 1, 'error', 'w-1', 1767323047250, 1767323048750, '{"type":"ValueError","message":"number 18 is no good","attempt":1,"at":"2026-01-02T03:04:08.750000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (4, 1, 1, 'timeout', 'w-1', 1767323047250, 1767323049250, '{"type":"TimeLimitExceeded","message":"ran longer than its limit of 5 s and was stopped","attempt":1,"at":"2026-01-02T03:04:09.250000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (5, 1, 1, 'lost', 'w-1', 1767323047250, 1767323049750, '{"type":"Lost","message":"its runner was killed by SIGKILL","attempt":1,"at":"2026-01-02T03:04:09.750000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (6, 1, 1, 'error', 'w-1', 1767323047250, 1767323050250, '{"type":"ConnectionError","message":"nobody there","attempt":1,"at":"2026-01-02T03:04:10.250000Z"}', 7.0);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (7, 1, 1, 'cancelled', 'w-1', 1767323047250, 1767323050750, '{"type":"Cancelled","message":"enough","attempt":1,"at":"2026-01-02T03:04:10.750000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (8, 1, 1, 'released', 'w-1', 1767323047250, 1767323051250, NULL, NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (9, 1, 1, 'snoozed', 'w-1', 1767323047250, 1767323051750, NULL, 20.0);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 1, 1, 'lost', 'w-1', 1767323052250, 1767323052750, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":1,"at":"2026-01-02T03:04:12.750000Z"}', 0.66754132820806633);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 2, 2, 'lost', 'w-1', 1767323052751, 1767323053251, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":2,"at":"2026-01-02T03:04:13.251000Z"}', 1.7120606387300013);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 3, 3, 'lost', 'w-1', 1767323053252, 1767323053752, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":3,"at":"2026-01-02T03:04:13.752000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (16, 1, 1, 'error', 'w-1', 1767323054753, 1767323055253, '{"type":"ValueError","message":"number 19 is no good","attempt":1,"at":"2026-01-02T03:04:15.253000Z"}', NULL);
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('1f057280f93a89a23dc086e4c09c2234', 'Ä ö.txt', 4, 'text/plain', '3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7', 1767323045000, NULL, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('aec9c4ada0c3ebd4590a5a3ae51c3fc7', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323047250, NULL, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('e46f8936ecac5e7735c3c9a9df390c51', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323047250, 1767323052250, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('bb6252ed523cad86169bb640f72ee8cd', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323055253, NULL, '');
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, '1f057280f93a89a23dc086e4c09c2234', 'input', 0);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, 'aec9c4ada0c3ebd4590a5a3ae51c3fc7', 'output', 1);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, 'e46f8936ecac5e7735c3c9a9df390c51', 'temporary', 1);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (16, 'bb6252ed523cad86169bb640f72ee8cd', 'temporary', 2);
INSERT INTO breakers (name, state, failures, window_started_at, trips, opened_at, open_until, reason, tripped_by_hand, let_through) VALUES ('copy_file', 'open', 0, NULL, 1, 1767323055253, 1767326655253, 'not today', 1, '[]');
INSERT INTO api_keys (id, name, scopes, tenant, digest, created_at, expires_at, last_used_at, revoked_at) VALUES ('tkf040f9975aa2', 'demo', '|read|submit|', 'north', '3e0310c855089ca23da89699d42cfe9bfbac5ee28c6a2c84db30355677191b91', 1767323055253, 1775099055253, NULL, NULL);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence (name, seq) VALUES ('tasks', 17);
CREATE INDEX ix_tasks_due ON tasks (scheduled_at, id) WHERE status IN ('scheduled', 'retrying');
CREATE INDEX ix_tasks_expiring ON tasks (expires_at, id) WHERE expires_at IS NOT NULL AND started_at IS NULL AND status IN ('pending', 'scheduled', 'blocked');
CREATE INDEX ix_tasks_finished ON tasks (status, finished_at, id) WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX ix_tasks_parent ON tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX ix_tasks_pending ON tasks (queue, task_type, rank, id) WHERE status = 'pending';
CREATE INDEX ix_tasks_unhappy ON tasks (status, id) WHERE status IN ('failed', 'cancelled');
CREATE INDEX ix_files_expiring ON files (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX ix_task_files_file ON task_files (file_id);
CREATE INDEX ix_tasks_dead ON tasks (fingerprint, id) WHERE status = 'failed' AND resolved_at IS NULL;
CREATE INDEX ix_tasks_leases ON tasks (lease_expires_at, id) WHERE lease_expires_at IS NOT NULL;
CREATE UNIQUE INDEX uq_tasks_unique_key ON tasks (unique_key, tenant) WHERE unique_key IS NOT NULL AND status IN ('pending', 'scheduled', 'retrying', 'blocked', 'running');
CREATE UNIQUE INDEX uq_tasks_idempotency_key ON tasks (idempotency_key, tenant) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ix_tasks_tenant ON tasks (tenant, id) WHERE tenant <> '';
CREATE INDEX ix_tasks_tenant_status ON tasks (tenant, status) WHERE tenant <> '';
COMMIT;
