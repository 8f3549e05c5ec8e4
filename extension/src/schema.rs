//! The extension's SQL objects, one file each in `sql/`, in the order in which they need each other.

use pgrx::prelude::extension_sql_file;

extension_sql_file!("../../sql/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../../sql/meta.sql", name = "meta", requires = ["roles"]);
extension_sql_file!("../../sql/entity.sql", name = "entity", requires = ["meta"]);
extension_sql_file!("../../sql/tell_streamer.sql", name = "tell_streamer", requires = ["entity"]);
extension_sql_file!("../../sql/event.sql", name = "event", requires = ["tell_streamer"]);
extension_sql_file!("../../sql/receipt.sql", name = "receipt", requires = ["event"]);
extension_sql_file!("../../sql/rejected_event.sql", name = "rejected_event", requires = ["receipt"]);
extension_sql_file!("../../sql/snapshot.sql", name = "snapshot", requires = ["rejected_event"]);
extension_sql_file!("../../sql/member.sql", name = "member", requires = ["snapshot"]);
extension_sql_file!("../../sql/refuse_change.sql", name = "refuse_change", requires = ["member"]);
extension_sql_file!("../../sql/caller.sql", name = "caller", requires = ["refuse_change"]);
extension_sql_file!("../../sql/uuid_v7.sql", name = "uuid_v7", requires = ["caller"]);
extension_sql_file!("../../sql/invalidate.sql", name = "invalidate", requires = ["uuid_v7"]);
extension_sql_file!("../../sql/parse_rules.sql", name = "parse_rules", requires = ["invalidate"]);
extension_sql_file!("../../sql/to_json.sql", name = "to_json", requires = ["parse_rules"]);
extension_sql_file!("../../sql/state_expression.sql", name = "state_expression", requires = ["to_json"]);
extension_sql_file!(
    "../../sql/entity_id_expression.sql",
    name = "entity_id_expression",
    requires = ["state_expression"]
);
extension_sql_file!("../../sql/singular.sql", name = "singular", requires = ["entity_id_expression"]);
extension_sql_file!("../../sql/require_owner.sql", name = "require_owner", requires = ["singular"]);
extension_sql_file!("../../sql/require_capturable.sql", name = "require_capturable", requires = ["require_owner"]);
extension_sql_file!("../../sql/members.sql", name = "members", requires = ["require_capturable"]);
extension_sql_file!("../../sql/place_of.sql", name = "place_of", requires = ["members"]);
extension_sql_file!("../../sql/leaves.sql", name = "leaves", requires = ["place_of"]);
extension_sql_file!("../../sql/key_of.sql", name = "key_of", requires = ["leaves"]);
extension_sql_file!("../../sql/settable_columns.sql", name = "settable_columns", requires = ["key_of"]);
extension_sql_file!("../../sql/ensure_publications.sql", name = "ensure_publications", requires = ["settable_columns"]);
extension_sql_file!("../../sql/lock_briefly.sql", name = "lock_briefly", requires = ["ensure_publications"]);
extension_sql_file!("../../sql/capture.sql", name = "capture", requires = ["lock_briefly"]);
extension_sql_file!("../../sql/is_captured.sql", name = "is_captured", requires = ["capture"]);
extension_sql_file!("../../sql/set_trigger_modes.sql", name = "set_trigger_modes", requires = ["is_captured"]);
extension_sql_file!("../../sql/set_identity.sql", name = "set_identity", requires = ["set_trigger_modes"]);
extension_sql_file!("../../sql/attach_member.sql", name = "attach_member", requires = ["set_identity"]);
extension_sql_file!("../../sql/attach_capture.sql", name = "attach_capture", requires = ["attach_member"]);
extension_sql_file!("../../sql/remember.sql", name = "remember", requires = ["attach_capture"]);
extension_sql_file!("../../sql/release.sql", name = "release", requires = ["remember"]);
extension_sql_file!("../../sql/grant_client.sql", name = "grant_client", requires = ["release"]);
extension_sql_file!("../../sql/write_baselines.sql", name = "write_baselines", requires = ["grant_client"]);
extension_sql_file!("../../sql/state_within.sql", name = "state_within", requires = ["write_baselines"]);
extension_sql_file!("../../sql/reconcile.sql", name = "reconcile", requires = ["state_within"]);
extension_sql_file!("../../sql/record_rows.sql", name = "record_rows", requires = ["reconcile"]);
extension_sql_file!("../../sql/rename_fields.sql", name = "rename_fields", requires = ["record_rows"]);
extension_sql_file!("../../sql/follow_columns.sql", name = "follow_columns", requires = ["rename_fields"]);
extension_sql_file!("../../sql/follow_partitions.sql", name = "follow_partitions", requires = ["follow_columns"]);
extension_sql_file!("../../sql/follow.sql", name = "follow", requires = ["follow_partitions"]);
extension_sql_file!("../../sql/enable_table.sql", name = "enable_table", requires = ["follow"]);
extension_sql_file!("../../sql/enable.sql", name = "enable", requires = ["enable_table"]);
extension_sql_file!("../../sql/disable.sql", name = "disable", requires = ["enable"]);
extension_sql_file!("../../sql/disable_all.sql", name = "disable_all", requires = ["disable"]);
extension_sql_file!("../../sql/publish.sql", name = "publish", requires = ["disable_all"]);
extension_sql_file!("../../sql/backfill.sql", name = "backfill", requires = ["publish"]);
extension_sql_file!("../../sql/syncable_tables.sql", name = "syncable_tables", requires = ["backfill"]);
extension_sql_file!("../../sql/history.sql", name = "history", requires = ["syncable_tables"]);
extension_sql_file!("../../sql/materialize.sql", name = "materialize", requires = ["history"]);
extension_sql_file!("../../sql/emit.sql", name = "emit", requires = ["materialize"]);
extension_sql_file!("../../sql/ingest.sql", name = "ingest", requires = ["emit"]);
extension_sql_file!("../../sql/retry_rejected.sql", name = "retry_rejected", requires = ["ingest"]);
extension_sql_file!("../../sql/discard_rejected.sql", name = "discard_rejected", requires = ["retry_rejected"]);
extension_sql_file!("../../sql/check.sql", name = "check", requires = ["discard_rejected"]);
extension_sql_file!("../../sql/follow_ddl.sql", name = "follow_ddl", requires = ["check"]);
extension_sql_file!("../../sql/follow_drop.sql", name = "follow_drop", requires = ["follow_ddl"]);
extension_sql_file!("../../sql/event_triggers.sql", name = "event_triggers", requires = ["follow_drop"]);
extension_sql_file!("../../sql/open_states.sql", name = "open_states", requires = ["event_triggers"]);
extension_sql_file!("../../sql/privileges.sql", name = "privileges", requires = ["open_states"]);
