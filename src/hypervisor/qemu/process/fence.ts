// Marks in a QEMU that is not ours, which outlive us: what whoever attaches next must know of its guest. A mark is a
// character device that nobody uses.
//
//   fenced    it was stopped because a secondary runs it: it must not run again, until somebody has taken the mark away
//             by hand
//   exposed   (where its disks are shared) a secondary may take it over: it must not run before that one is linked

import { badConfiguration, failed } from '../../port.js';
import { isObject } from '../monitor/qmp-parser.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';

export type Mark = 'fenced' | 'exposed';

const idOf = (mark: Mark): string => `romulus-${mark}`;

/** @throws as QmpClient.execute() */
export async function setMark(qmp: QmpClient, mark: Mark): Promise<void> {
  try {
    await qmp.execute('chardev-add', { id: idOf(mark), backend: { type: 'null', data: {} } });
  } catch (error) {
    if (!(error instanceof QmpError) || !error.description.includes('already exists')) throw error;
  }
}

/** @throws as QmpClient.execute() */
export async function clearMark(qmp: QmpClient, mark: Mark): Promise<void> {
  if (await hasMark(qmp, mark)) await qmp.execute('chardev-remove', { id: idOf(mark) });
}

/** @throws as QmpClient.execute(), or HypervisorError FAILED */
export async function hasMark(qmp: QmpClient, mark: Mark): Promise<boolean> {
  const devices = await qmp.execute('query-chardev');
  if (!Array.isArray(devices)) throw failed('QEMU does not list its character devices');
  return (devices as unknown[]).some((device) => isObject(device) && device['label'] === idOf(mark));
}

/**
 * `name` is the domain's, `undoing` what else is to be undone.
 * @throws HypervisorError BAD_CONFIGURATION if the guest is fenced
 */
export async function checkFenced(qmp: QmpClient, name: string, undoing: readonly string[]): Promise<void> {
  if (await hasMark(qmp, 'fenced')) throw badConfiguration(fencedAdvice(name, undoing), { name });
}

export function fencedAdvice(name: string, undoing: readonly string[]): string {
  return (
    `the guest of ${name} was stopped, because a secondary runs it; to let it go on here after all, end it there ` +
    `and say in its QEMU's monitor: ${[...undoing, unmarking('fenced'), 'cont'].join(', ')}`
  );
}

export function exposedAdvice(name: string, undoing: readonly string[]): string {
  return (
    `the guest of ${name} was stopped, because a secondary may take it over, and both would write to its disks; if none ` +
    `does, say in its QEMU's monitor: ${[...undoing, unmarking('exposed'), 'cont'].join(', ')}`
  );
}

export function heldAdvice(name: string, undoing: readonly string[]): string {
  return (
    `the guest of ${name} goes on without its network, because a secondary may take it over; if none does, say in its ` +
    `QEMU's monitor: ${undoing.join(', ')}`
  );
}

function unmarking(mark: Mark): string {
  return `chardev-remove ${idOf(mark)}`;
}
