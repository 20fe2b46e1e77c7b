// A mark in a QEMU that is not ours, which outlives us: its guest was stopped because a secondary runs it. Whoever attaches
// next must not let it run again, until somebody has taken the mark away by hand. The mark is a character device that
// nobody uses.

import { HypervisorError } from '../port.js';
import { isObject } from './qmp-parser.js';
import { QmpError, type QmpClient } from './qmp.js';

const ID = 'romulus-fenced';

/** Fails as QmpClient.execute does. */
export async function markFenced(qmp: QmpClient): Promise<void> {
  try {
    await qmp.execute('chardev-add', { id: ID, backend: { type: 'null', data: {} } });
  } catch (error) {
    if (!(error instanceof QmpError) || !error.description.includes('already exists')) throw error;
  }
}

/** Fails with BAD_CONFIGURATION if the guest is marked; `name` is the domain's, `undoing` what else is to be undone. */
export async function checkFenced(qmp: QmpClient, name: string, undoing: readonly string[]): Promise<void> {
  const devices = await qmp.execute('query-chardev');
  if (!Array.isArray(devices))
    throw new HypervisorError('FAILED', 'QEMU does not list its character devices.');
  if ((devices as unknown[]).some((device) => isObject(device) && device['label'] === ID)) {
    throw new HypervisorError('BAD_CONFIGURATION', fencedAdvice(name, undoing), { name });
  }
}

export function fencedAdvice(name: string, undoing: readonly string[]): string {
  return (
    `The guest of ${name} was stopped, because a secondary runs it. To let it go on here after all, end it there ` +
    `and say in its QEMU's monitor: ${[...undoing, `chardev-remove ${ID}`, 'cont'].join(', ')}.`
  );
}
