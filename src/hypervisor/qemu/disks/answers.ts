// What QEMU answers to questions about disks: lists, or that there is no such thing.

import { failed } from '../../port.js';
import { isObject, type JsonObject } from '../monitor/qmp-parser.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';

/** @throws HypervisorError FAILED, DOMAIN_GONE */
export async function listOf(
  qmp: QmpClient,
  command: string,
  argument?: JsonObject,
): Promise<readonly JsonObject[]> {
  const answer = await qmp.execute(command, argument);
  if (Array.isArray(answer) && (answer as unknown[]).every(isObject)) return answer as JsonObject[];
  throw failed(`QEMU does not answer ${command} with a list`, { command });
}

/** False: QEMU has no such thing. @throws as QmpClient.execute() */
export async function isTaken(command: Promise<unknown>): Promise<boolean> {
  try {
    await command;
    return true;
  } catch (error) {
    if (error instanceof QmpError && isMissing(error)) return false;
    throw error;
  }
}

function isMissing({ errorClass, description }: QmpError): boolean {
  return errorClass === 'DeviceNotActive' || /not found|cannot find|failed to find/i.test(description);
}
