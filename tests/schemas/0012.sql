BEGIN;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE queues (
	name VARCHAR(64) NOT NULL, 
	paused BOOLEAN DEFAULT 0 NOT NULL, max_running INTEGER, rate_limit INTEGER, rate_period_seconds FLOAT, max_depth INTEGER, tokens FLOAT, refilled_at BIGINT, 
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
	runs_alone BOOLEAN DEFAULT 0 NOT NULL, retry TEXT, retry_for_seconds FLOAT, retry_until BIGINT, fingerprint VARCHAR(16), resolved_at BIGINT, resolution TEXT, tenant VARCHAR(64) DEFAULT '' NOT NULL, concurrency_limit INTEGER, webhook_url TEXT, tracestate VARCHAR(512), 
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
	beat_at BIGINT NOT NULL, memory_bytes BIGINT, runners TEXT DEFAULT '[]' NOT NULL, 
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
CREATE TABLE tallies (
	span_seconds INTEGER NOT NULL, 
	begins_at BIGINT NOT NULL, 
	queue VARCHAR(64) NOT NULL, 
	task_type VARCHAR(64) NOT NULL, 
	submitted BIGINT, 
	completed BIGINT, 
	failed BIGINT, 
	retried BIGINT, 
	cancelled BIGINT, 
	wait_seconds FLOAT, 
	run_seconds FLOAT, 
	wait_0 BIGINT, 
	wait_1 BIGINT, 
	wait_2 BIGINT, 
	wait_3 BIGINT, 
	wait_4 BIGINT, 
	wait_5 BIGINT, 
	wait_6 BIGINT, 
	wait_7 BIGINT, 
	wait_8 BIGINT, 
	wait_9 BIGINT, 
	wait_10 BIGINT, 
	wait_11 BIGINT, 
	wait_12 BIGINT, 
	wait_13 BIGINT, 
	wait_14 BIGINT, 
	run_0 BIGINT, 
	run_1 BIGINT, 
	run_2 BIGINT, 
	run_3 BIGINT, 
	run_4 BIGINT, 
	run_5 BIGINT, 
	run_6 BIGINT, 
	run_7 BIGINT, 
	run_8 BIGINT, 
	run_9 BIGINT, 
	run_10 BIGINT, 
	run_11 BIGINT, 
	run_12 BIGINT, 
	run_13 BIGINT, 
	run_14 BIGINT, 
	PRIMARY KEY (span_seconds, begins_at, queue, task_type)
)
 WITHOUT ROWID

;
CREATE TABLE webhooks (
	id VARCHAR(16) NOT NULL, 
	tenant VARCHAR(64) NOT NULL, 
	url TEXT NOT NULL, 
	description TEXT, 
	events TEXT NOT NULL, 
	task_types TEXT NOT NULL, 
	queues TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	secrets TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	failures INTEGER NOT NULL, 
	failing_since BIGINT, 
	last_error TEXT, 
	switched_off_at BIGINT, 
	switched_off_reason TEXT, 
	PRIMARY KEY (id), 
	CONSTRAINT ck_webhooks_failing_has_moment CHECK ((failures > 0) = (failing_since IS NOT NULL)), 
	CONSTRAINT ck_webhooks_reason_has_moment CHECK (switched_off_at IS NOT NULL OR switched_off_reason IS NULL)
)
 WITHOUT ROWID

;
CREATE TABLE webhook_deliveries (
	task_id INTEGER NOT NULL, 
	webhook_id VARCHAR(16) NOT NULL, 
	event VARCHAR(32) NOT NULL, 
	message_id VARCHAR(100) NOT NULL, 
	PRIMARY KEY (task_id), 
	CONSTRAINT fk_webhook_deliveries_task_id FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE
);
CREATE TABLE sessions (
	digest VARCHAR(64) NOT NULL, 
	sign_in VARCHAR(32) NOT NULL, 
	key_id VARCHAR(16) NOT NULL, 
	renewed_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	ends_at BIGINT NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE alerts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	rule VARCHAR(64) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	queue VARCHAR(64), 
	severity VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	what TEXT NOT NULL, 
	value FLOAT NOT NULL, 
	threshold FLOAT NOT NULL, 
	began_at BIGINT NOT NULL, 
	fired_at BIGINT, 
	calm_since BIGINT, 
	cleared_at BIGINT, 
	told_at BIGINT, 
	CONSTRAINT ck_alerts_state CHECK (state IN ('holding', 'firing', 'cleared')), 
	CONSTRAINT ck_alerts_fires_from_moment CHECK ((state = 'holding') = (fired_at IS NULL)), 
	CONSTRAINT ck_alerts_cleared_has_end CHECK ((state = 'cleared') = (cleared_at IS NOT NULL))
);
CREATE TABLE alert_notices (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	alert_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	channel VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	told TEXT NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	lease INTEGER DEFAULT '0' NOT NULL, 
	due_at BIGINT NOT NULL, 
	claimed_until BIGINT, 
	error TEXT, 
	created_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	CONSTRAINT ck_alert_notices_state CHECK (state IN ('waiting', 'sent', 'given_up')), 
	CONSTRAINT ck_alert_notices_ended_has_end CHECK ((state = 'waiting') = (ended_at IS NULL)), 
	CONSTRAINT fk_alert_notices_alert_id FOREIGN KEY(alert_id) REFERENCES alerts (id) ON DELETE CASCADE
);
CREATE TABLE alert_silences (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	rule VARCHAR(64), 
	queue VARCHAR(64), 
	ends_at BIGINT NOT NULL, 
	note TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	created_by VARCHAR(64) NOT NULL
);
CREATE TABLE turns (
	name VARCHAR(64) NOT NULL, 
	taken_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID

;
CREATE TABLE audit_log (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at BIGINT NOT NULL, 
	key_id VARCHAR(16), 
	key_name VARCHAR(64) NOT NULL, 
	tenant VARCHAR(64) NOT NULL, 
	address VARCHAR(64) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	target VARCHAR(255) NOT NULL, 
	"before" TEXT, 
	"after" TEXT
);
CREATE TABLE task_logs (
	task_id INTEGER NOT NULL, 
	lease INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	count INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	lines TEXT NOT NULL, 
	PRIMARY KEY (task_id, lease, number), 
	CONSTRAINT fk_task_logs_task_id FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO alembic_version (version_num) VALUES ('0012');
INSERT INTO queues (name, paused, max_running, rate_limit, rate_period_seconds, max_depth, tokens, refilled_at) VALUES ('other', 1, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO queues (name, paused, max_running, rate_limit, rate_period_seconds, max_depth, tokens, refilled_at) VALUES ('default', 0, 50, 1000, 0.5, 10000, 998.0, 1767323055253);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (1, 'echo', 'default', 'completed', 0, 1767323045000, '{"number":0}', '{"text":"Grüße, 世界 🚀","number":9007199254740993}', NULL, NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323045000, NULL, 1767323047750, 1767323048000, NULL, 'u0', 'key-0', '96896e3bb93a9fb8550a182e4e650b07747f9320f3045d45bc9fff437efeee69', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (2, 'echo', 'default', 'failed', 0, 1767323045250, '{"number":1}', NULL, '{"type":"ValueError","message":"number 17 is no good","attempt":1,"at":"2026-01-02T03:04:08.250000Z","traceback":"Traceback (most recent call last):\n  ..."}', 'error', '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323045250, NULL, 1767323047250, 1767323048250, NULL, 'u1', 'key-1', '3ead8847fd0f125af535ea2ecb53f09048a4b26eea99100b3606fca1ec9a0b02', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', 1767323055253, 'seen to', '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (3, 'echo', 'default', 'failed', 0, 1767323045500, '{"number":2}', NULL, '{"type":"ValueError","message":"number 18 is no good","attempt":1,"at":"2026-01-02T03:04:08.750000Z"}', 'exhausted', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323045500, NULL, 1767323047250, 1767323048750, NULL, 'u2', 'key-2', '4244fccb8ece5e7b11b92a827b3ff0aaa1cb00996ec9b69841c79dc410107313', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (4, 'echo', 'default', 'failed', 0, 1767323045750, '{"number":3}', NULL, '{"type":"TimeLimitExceeded","message":"ran longer than its limit of 5 s and was stopped","attempt":1,"at":"2026-01-02T03:04:09.250000Z"}', 'timeout', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323045750, NULL, 1767323047250, 1767323049250, NULL, 'u3', 'key-3', '3619fe9767b8346ca8e7bb7101b5e9f9dc34c72480e3df5c8769d069c445d6fb', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, '50a3010a76c6a46d', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (5, 'echo', 'default', 'failed', 0, 1767323046000, '{"number":4}', NULL, '{"type":"Lost","message":"its runner was killed by SIGKILL","attempt":1,"at":"2026-01-02T03:04:09.750000Z"}', 'lost', '{"percent":50}', 1, 1, 300.0, 1, NULL, 'w-1', NULL, 1767323046000, NULL, 1767323047250, 1767323049750, NULL, 'u4', 'key-4', 'ae794d7ac1165908cca34475a1ab2c552e4f5aeb3eecebd3268f06656d957743', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 1, 0, NULL, NULL, NULL, 'ab206d7b2c3edb75', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (6, 'echo', 'default', 'retrying', 0, 1767323057250, '{"number":5}', NULL, '{"type":"ConnectionError","message":"nobody there","attempt":1,"at":"2026-01-02T03:04:10.250000Z"}', NULL, NULL, 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323046250, 1767323057250, 1767323047250, NULL, NULL, 'u5', 'key-5', '5700a43fe2838bd2e97abdf13dc4fc59711faefb34e10b9d59879b93be0e03c6', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (7, 'echo', 'default', 'cancelled', 0, 1767323046500, '{"number":6}', NULL, '{"type":"Cancelled","message":"enough","attempt":1,"at":"2026-01-02T03:04:10.750000Z"}', NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323046500, NULL, 1767323047250, 1767323050750, NULL, 'u6', 'key-6', 'b65f4226d0864365f6608d9baafe0bbe2cf6a5198fe9b323cd662a3d4279ec36', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (8, 'echo', 'default', 'running', 0, 1767323046750, '{"number":7}', NULL, NULL, NULL, NULL, 1, 3, 300.0, 2, 1767323085253, 'w-1', 1767323055253, 1767323046750, NULL, 1767323055253, NULL, NULL, 'u7', 'key-7', 'e22c95516ba0e0af563f171f5de09d23f8674414caed1a9b894623d5a08c6cbd', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (9, 'echo', 'default', 'scheduled', 0, 1767323071750, '{"number":8}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323047000, 1767323071750, 1767323047250, NULL, NULL, 'u8', 'key-8', 'd2d5d9e383e102033630c397c2a5a48ef62d4bf42fdd6ba43e12addef1d9b32a', NULL, NULL, '|red|blue|', '{"who":"Zoë","depth":[[1.5,null,true]]}', NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (10, 'copy_file', 'default', 'completed', 100, 1767317047250, '{"file_id":"f0890d93eaa6c948cbfdcb60d8791f04"}', 'null', NULL, NULL, '{"percent":50}', 1, 3, 300.0, 1, NULL, 'w-1', NULL, 1767323047250, NULL, 1767323052250, 1767323052500, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (11, 'echo', 'default', 'pending', 0, 1767323047250, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323047250, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, '', NULL, NULL, 0, 0, '{"base_seconds":2.0,"ceiling_seconds":3600.0,"policy":"fixed","jitter":true}', 600.5, 1767323647750, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (12, 'echo', 'default', 'failed', 90, 1767317653252, '{}', NULL, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":3,"at":"2026-01-02T03:04:13.752000Z"}', 'poisoned', '{"percent":50}', 3, 9, 300.0, 3, NULL, 'w-1', NULL, 1767323052250, NULL, 1767323053252, 1767323053752, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 3, 0, NULL, NULL, NULL, '15e7827dff246b52', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (13, 'echo', 'other', 'cancelled', 0, 1767323053753, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, 1767323053753, 1767323053753, NULL, NULL, 1767323053753, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (15, 'echo', 'other', 'failed', 0, 1767323053753, '{}', NULL, '{"type":"Expired","message":"it had not started by expires_at","attempt":0,"at":"2026-01-02T03:04:14.753000Z"}', 'expired', NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323053753, NULL, NULL, 1767323054753, 1767323054753, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, '29d467a4f1f43734', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (16, 'echo', 'default', 'running', 80, 1767318255253, '{}', NULL, '{"type":"ValueError","message":"number 19 is no good","attempt":1,"at":"2026-01-02T03:04:15.253000Z"}', NULL, '{"percent":10}', 1, 3, 300.0, 2, 1767323085253, 'w-1', NULL, 1767323054753, NULL, 1767323055253, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, 'e0e4da60acd5f79e', NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (17, 'echo', 'other', 'scheduled', 0, 1769915055253, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323055253, 1769915055253, NULL, NULL, 1770001455253, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (18, 'echo', 'other', 'pending', 0, 1767323055253, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323055253, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'customer:7', NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', 1, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (19, 'echo', 'other', 'blocked', 0, 1767323055253, '{}', NULL, NULL, NULL, NULL, 0, 3, 300.0, 0, NULL, NULL, NULL, 1767323055253, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'customer:7', NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', 1, NULL, NULL);
INSERT INTO tasks (id, task_type, queue, status, priority, rank, payload, result, error, failure_reason, progress, attempts, max_attempts, timeout_seconds, lease, lease_expires_at, worker_id, cancel_requested_at, created_at, scheduled_at, started_at, finished_at, expires_at, unique_key, idempotency_key, request_hash, concurrency_key, parent_id, tags, metadata, traceparent, deaths, runs_alone, retry, retry_for_seconds, retry_until, fingerprint, resolved_at, resolution, tenant, concurrency_limit, webhook_url, tracestate) VALUES (20, 'webhook', 'default', 'pending', 100, 1767317055253, '{"url":"https://hooks.example.com/in?a=1","message_id":"msg_test_00c6da1580173e28_wh30ab97e47e38","body":"{\"type\":\"webhook.test\",\"timestamp\":\"2026-01-02T03:04:15.253000Z\",\"data\":{\"webhook_id\":\"wh30ab97e47e38\"}}","webhook_id":"wh30ab97e47e38","secrets":["new","old"]}', NULL, NULL, NULL, NULL, 0, 15, 60.0, 0, NULL, NULL, NULL, 1767323055253, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 'north', NULL, NULL, NULL);
INSERT INTO workers (id, name, host, pid, queues, task_types, slots, running, state, started_at, beat_at, memory_bytes, runners) VALUES ('demo-522d8188', 'demo', 'vm', 11218, '|default|other|', '|echo|', 4, '[]', 'running', 1767323055253, 1767323055253, NULL, '[]');
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
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 1, 1, 'lost', 'w-1', 1767323052250, 1767323052750, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":1,"at":"2026-01-02T03:04:12.750000Z"}', 0.28200261852703801);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 2, 2, 'lost', 'w-1', 1767323052751, 1767323053251, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":2,"at":"2026-01-02T03:04:13.251000Z"}', 1.7596417090811254);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (12, 3, 3, 'lost', 'w-1', 1767323053252, 1767323053752, '{"type":"Lost","message":"its runner was killed by SIGSEGV","attempt":3,"at":"2026-01-02T03:04:13.752000Z"}', NULL);
INSERT INTO task_attempts (task_id, lease, attempt, outcome, worker_id, started_at, finished_at, error, delay_seconds) VALUES (16, 1, 1, 'error', 'w-1', 1767323054753, 1767323055253, '{"type":"ValueError","message":"number 19 is no good","attempt":1,"at":"2026-01-02T03:04:15.253000Z"}', NULL);
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('f0890d93eaa6c948cbfdcb60d8791f04', 'Ä ö.txt', 4, 'text/plain', '3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7', 1767323045000, NULL, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('a19d4780a24069a58a9a1d7cb91f0284', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323047250, NULL, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('c6e07f022191213d8923d80c52cb5d3b', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323047250, 1767323052250, '');
INSERT INTO files (id, name, size, content_type, sha256, created_at, expires_at, tenant) VALUES ('331d95797200cd3a2ab39a348e3073eb', 'made.bin', 4, 'application/octet-stream', 'ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b', 1767323055253, NULL, '');
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, 'a19d4780a24069a58a9a1d7cb91f0284', 'output', 1);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, 'c6e07f022191213d8923d80c52cb5d3b', 'temporary', 1);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (10, 'f0890d93eaa6c948cbfdcb60d8791f04', 'input', 0);
INSERT INTO task_files (task_id, file_id, role, lease) VALUES (16, '331d95797200cd3a2ab39a348e3073eb', 'temporary', 2);
INSERT INTO breakers (name, state, failures, window_started_at, trips, opened_at, open_until, reason, tripped_by_hand, let_through) VALUES ('copy_file', 'open', 0, NULL, 1, 1767323055253, 1767326655253, 'not today', 1, '[]');
INSERT INTO api_keys (id, name, scopes, tenant, digest, created_at, expires_at, last_used_at, revoked_at) VALUES ('tk6411ef2deed8', 'demo', '|read|submit|', 'north', 'e5c448ea712fd4afb83cf9f6115ee92e924f948f0c3a47e9ff04f75d320d63cd', 1767323055253, 1775099055253, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (0, 0, 'default', 'copy_file', 1, 1, NULL, NULL, NULL, NULL, 0.25, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (0, 0, 'default', 'echo', 13, 1, 6, 3, 1, 19.753000020980835, 3.25, 5, NULL, NULL, 1, 1, 2, 5, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 13, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (0, 0, 'default', 'webhook', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (0, 0, 'other', 'echo', 5, NULL, 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (60, 1767323040000, 'default', 'copy_file', 1, 1, NULL, NULL, NULL, NULL, 0.25, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (60, 1767323040000, 'default', 'echo', 13, 1, 6, 3, 1, 19.753000020980835, 3.25, 5, NULL, NULL, 1, 1, 2, 5, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 13, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (60, 1767323040000, 'default', 'webhook', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (60, 1767323040000, 'other', 'echo', 5, NULL, 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (3600, 1767322800000, 'default', 'copy_file', 1, 1, NULL, NULL, NULL, NULL, 0.25, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (3600, 1767322800000, 'default', 'echo', 13, 1, 6, 3, 1, 19.753000020980835, 3.25, 5, NULL, NULL, 1, 1, 2, 5, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 13, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (3600, 1767322800000, 'default', 'webhook', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tallies (span_seconds, begins_at, queue, task_type, submitted, completed, failed, retried, cancelled, wait_seconds, run_seconds, wait_0, wait_1, wait_2, wait_3, wait_4, wait_5, wait_6, wait_7, wait_8, wait_9, wait_10, wait_11, wait_12, wait_13, wait_14, run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8, run_9, run_10, run_11, run_12, run_13, run_14) VALUES (3600, 1767322800000, 'other', 'echo', 5, NULL, 1, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO webhooks (id, tenant, url, description, events, task_types, queues, tags, secrets, created_at, failures, failing_since, last_error, switched_off_at, switched_off_reason) VALUES ('wh30ab97e47e38', 'north', 'https://hooks.example.com/in?a=1', 'Zoë', '|failed|cancelled|', '|echo|', '', '|red|', '|new|old|', 1767323055253, 0, NULL, NULL, NULL, NULL);
INSERT INTO webhook_deliveries (task_id, webhook_id, event, message_id) VALUES (20, 'wh30ab97e47e38', 'webhook.test', 'msg_test_00c6da1580173e28_wh30ab97e47e38');
INSERT INTO sessions (digest, sign_in, key_id, renewed_at, expires_at, ends_at) VALUES ('b42cc291c3f4a37fe17dd11cc2e8d9319e93bc2338de651f29283894306c69c4', '0fda040d0fa92c475640d28d2b5eba5e', 'tk6411ef2deed8', 1767323055253, 1767324855253, 1767351855253);
INSERT INTO alerts (id, rule, subject, queue, severity, state, what, value, threshold, began_at, fired_at, calm_since, cleared_at, told_at) VALUES (1, 'breaker-open', 'copy_file', NULL, 'warning', 'cleared', 'Breaker copy_file is open, 3 ready tasks wait behind it: not today', 3.0, 0.0, 1767323055253, 1767323116253, 1767323117253, 1767323455253, 1767323116253);
INSERT INTO alerts (id, rule, subject, queue, severity, state, what, value, threshold, began_at, fired_at, calm_since, cleared_at, told_at) VALUES (2, 'breaker-open', 'copy_file', NULL, 'warning', 'firing', 'Breaker copy_file is open, 3 ready tasks wait behind it: not today', 3.0, 0.0, 1767323456253, 1767323525253, NULL, NULL, 1767323525253);
INSERT INTO alert_notices (id, alert_id, kind, channel, state, told, attempts, lease, due_at, claimed_until, error, created_at, ended_at) VALUES (1, 1, 'fired', 'webhook', 'waiting', '{"type":"alert.fired","timestamp":"2026-01-02T03:05:16.253000Z","data":{"id":1,"rule":"breaker-open","subject":"copy_file","queue":null,"severity":"warning","what":"Breaker copy_file is open, 3 ready tasks wait behind it: not today","value":3,"threshold":0,"began_at":"2026-01-02T03:04:15.253000Z","fired_at":"2026-01-02T03:05:16.253000Z","cleared_at":null}}', 0, 0, 1767323116253, NULL, NULL, 1767323116253, NULL);
INSERT INTO alert_notices (id, alert_id, kind, channel, state, told, attempts, lease, due_at, claimed_until, error, created_at, ended_at) VALUES (2, 1, 'cleared', 'webhook', 'waiting', '{"type":"alert.cleared","timestamp":"2026-01-02T03:10:55.253000Z","data":{"id":1,"rule":"breaker-open","subject":"copy_file","queue":null,"severity":"warning","what":"Breaker copy_file is open, 3 ready tasks wait behind it: not today","value":3.0,"threshold":0.0,"began_at":"2026-01-02T03:04:15.253000Z","fired_at":"2026-01-02T03:05:16.253000Z","cleared_at":"2026-01-02T03:10:55.253000Z"}}', 0, 0, 1767323455253, NULL, NULL, 1767323455253, NULL);
INSERT INTO alert_notices (id, alert_id, kind, channel, state, told, attempts, lease, due_at, claimed_until, error, created_at, ended_at) VALUES (3, 2, 'fired', 'webhook', 'waiting', '{"type":"alert.fired","timestamp":"2026-01-02T03:12:05.253000Z","data":{"id":2,"rule":"breaker-open","subject":"copy_file","queue":null,"severity":"warning","what":"Breaker copy_file is open, 3 ready tasks wait behind it: not today","value":3,"threshold":0,"began_at":"2026-01-02T03:10:56.253000Z","fired_at":"2026-01-02T03:12:05.253000Z","cleared_at":null}}', 0, 0, 1767323525253, NULL, NULL, 1767323525253, NULL);
INSERT INTO alert_silences (id, rule, queue, ends_at, note, created_at, created_by) VALUES (1, 'queue-old', 'other', 1769915055253, 'it is meant to wait', 1767323055253, 'demo');
INSERT INTO turns (name, taken_at) VALUES ('alerts', 1767323055253);
INSERT INTO audit_log (id, at, key_id, key_name, tenant, address, action, target, before, after) VALUES (1, 1767323055253, 'tk0', 'demo', '', '', 'silence.create', 'silence 1', NULL, '{"id":1,"rule":"queue-old","queue":"other","ends_at":"2026-02-01T03:04:15.253000Z","note":"it is meant to wait","created_at":"2026-01-02T03:04:15.253000Z","created_by":"demo"}');
INSERT INTO task_logs (task_id, lease, number, count, attempt, lines) VALUES (16, 2, 1, 1, 1, '[{"number":1,"at":"2026-01-02T03:04:15.253000Z","source":"log","text":"Grüße, \u0000 🚀","fields":{"order":9007199254740993}}]');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence (name, seq) VALUES ('tasks', 20);
INSERT INTO sqlite_sequence (name, seq) VALUES ('alerts', 2);
INSERT INTO sqlite_sequence (name, seq) VALUES ('alert_notices', 3);
INSERT INTO sqlite_sequence (name, seq) VALUES ('alert_silences', 1);
INSERT INTO sqlite_sequence (name, seq) VALUES ('audit_log', 1);
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
CREATE INDEX ix_tasks_blocked ON tasks (queue, task_type, rank, id) WHERE '' || status = 'blocked';
CREATE INDEX ix_tasks_contending ON tasks (concurrency_key, status, rank, id) WHERE concurrency_key IS NOT NULL AND status IN ('pending', 'blocked', 'running');
CREATE INDEX ix_webhook_deliveries_webhook ON webhook_deliveries (webhook_id, task_id);
CREATE UNIQUE INDEX uq_alerts_active ON alerts (rule, subject) WHERE state IN ('holding', 'firing');
CREATE INDEX ix_alerts_past ON alerts (cleared_at, id) WHERE cleared_at IS NOT NULL;
CREATE INDEX ix_alert_notices_unsent ON alert_notices (due_at, id) WHERE state = 'waiting';
CREATE INDEX ix_alert_notices_alert ON alert_notices (alert_id, id);
CREATE INDEX ix_audit_log_at ON audit_log (at, id);
CREATE INDEX ix_audit_log_tenant ON audit_log (tenant, id) WHERE tenant <> '';
COMMIT;
