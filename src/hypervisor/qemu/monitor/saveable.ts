// Can this guest be saved at all? QEMU knows, and does not say so by itself: its command for the device state does not
// look (with an NVMe disk it even dies), so that a guest could be protected and its takeover fail. Its command to migrate
// does look, before anything else. With an address that is none nothing is begun, and nothing of the guest changes:
//
//   migrate romulus-asks:nothing ──▶ "State blocked by non-migratable device …"          it cannot be saved
//                                ──▶ "… expects a valid migration protocol"              it can

import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../../flow/clock.js';
import { badConfiguration, failed } from '../../port.js';
import { isObject } from './qmp-parser.js';
import { QmpError, type QmpClient } from './qmp.js';

/** No version of QEMU has such a protocol, or will. */
const NOWHERE = 'romulus-asks:nothing';
/** What QEMU says of an address that is none: of 7.2, and of its later versions. */
const NOTHING_BLOCKS = /expects a valid migration protocol|unknown migration protocol/i;
/** A full state was taken a moment ago, and the guest does not run again yet: so it can be saved. */
const WAS_SAVED = /due to previous migration/i;
const UNDER_WAY = /migration process in progress/i;
/** Such a taking is over sooner than this. */
const TAKING_MS = 1000;
/** A standby that waits to be filled cannot be asked; it was started with -only-migratable. */
const WAITS = /waiting for an incoming migration/i;
/** A migration is there or was tried in these. */
const MIGRATING: ReadonlySet<string> = new Set([
  ...['setup', 'active', 'postcopy-active', 'postcopy-paused', 'postcopy-recover', 'pre-switchover'],
  ...['device', 'wait-unplug', 'colo', 'cancelling'],
]);

/** @throws HypervisorError BAD_CONFIGURATION, in QEMU's words, or DOMAIN_GONE */
export async function checkSaveable(qmp: QmpClient): Promise<void> {
  const blocked = await whyBlocked(qmp);
  if (blocked === null) return;
  throw badConfiguration(`QEMU cannot save the state of this guest: ${blocked}`, { reason: blocked });
}

/** Why the guest cannot be saved, in QEMU's words; null: it can. @throws HypervisorError FAILED or DOMAIN_GONE */
export async function whyBlocked(qmp: QmpClient): Promise<string | null> {
  // One that is under way may be ours.
  const limit = monotonicMs() + TAKING_MS;
  let migration = await qmp.execute('query-migrate');
  while (statusUnderWay(migration) !== null && monotonicMs() < limit) {
    await sleep(5);
    migration = await qmp.execute('query-migrate');
  }
  const blocked = reasonsIn(migration); // asked again, one of ours may be under way by now
  if (blocked !== null) return blocked;
  try {
    await qmp.execute('migrate', { uri: NOWHERE });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    const { description } = error;
    // It was begun between the two questions.
    if (UNDER_WAY.test(description)) return whyBlocked(qmp);
    const can = [NOTHING_BLOCKS, WAITS, WAS_SAVED].some((words) => words.test(description));
    return can ? null : description;
  }
  throw failed('QEMU migrates to nowhere', { uri: NOWHERE });
}

/** What QEMU says without being told to migrate: not all of it, but it costs one question. */
export async function reasonsKnown(qmp: QmpClient): Promise<string | null> {
  return reasonsIn(await qmp.execute('query-migrate'));
}

/** `migration`: the answer to query-migrate. */
export function reasonsIn(migration: unknown): string | null {
  if (!isObject(migration)) return null;
  const underWay = statusUnderWay(migration);
  if (underWay !== null) return `a migration is under way (${underWay})`;
  const reasons = migration['blocked-reasons'];
  return Array.isArray(reasons) && reasons.length > 0 ? (reasons as unknown[]).map(String).join('; ') : null;
}

function statusUnderWay(migration: unknown): string | null {
  const status = isObject(migration) ? migration['status'] : null;
  return typeof status === 'string' && MIGRATING.has(status) ? status : null;
}
