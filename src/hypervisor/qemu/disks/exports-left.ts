// Exports of ours in a QEMU: how one is removed, and how all that somebody has left.

import type { QmpClient } from '../monitor/qmp.js';
import { isTaken, listOf } from './answers.js';
import { ExpectedEvent } from './expected.js';
import { OURS } from './names.js';

/** Its clients are sent away. @throws HypervisorError */
export async function removeExport(qmp: QmpClient, id: string): Promise<void> {
  const removed = new ExpectedEvent(
    qmp,
    `its export ${id} is gone`,
    ({ name, data }) => name === 'BLOCK_EXPORT_DELETED' && data['id'] === id,
  );
  try {
    if (await isTaken(qmp.execute('block-export-del', { id, mode: 'hard' }))) await removed.come();
  } finally {
    removed.drop();
  }
}

/** All of ours, and QEMU's NBD server, if it was for them. @throws HypervisorError */
export async function removeExports(qmp: QmpClient): Promise<void> {
  const exports = (await listOf(qmp, 'query-block-exports')).map(({ id }) => String(id));
  const ours = exports.filter((id) => id.startsWith(OURS));
  for (const id of ours) await removeExport(qmp, id);
  if (ours.length > 0 && ours.length === exports.length) await qmp.execute('nbd-server-stop');
}
