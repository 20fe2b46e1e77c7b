// X86_TSC_INFO: the domain's time stamp counter, 24 octets.
//
//   | mode u32 | khz u32 | nsec u64 | incarnation u32 | reserved u32 |

import { viewOf } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { demandExactly } from './shape.js';

const TSC_INFO_BYTES = 24;

export interface TscInfo {
  /** TSC_MODE_*. */
  readonly mode: number;
  readonly khz: number;
  /** Elapsed time, in nanoseconds. */
  readonly nsec: bigint;
  readonly incarnation: number;
}

/** @throws StreamError BAD_RECORD */
export function decodeTscInfo(record: StreamRecord): TscInfo {
  demandExactly(record, TSC_INFO_BYTES);
  const view = viewOf(record.body);
  return {
    mode: view.getUint32(0, true),
    khz: view.getUint32(4, true),
    nsec: view.getBigUint64(8, true),
    incarnation: view.getUint32(16, true),
  };
}

export function encodeTscInfo(info: TscInfo): Uint8Array {
  const body = new Uint8Array(TSC_INFO_BYTES);
  const view = viewOf(body);
  view.setUint32(0, info.mode, true);
  view.setUint32(4, info.khz, true);
  view.setBigUint64(8, info.nsec, true);
  view.setUint32(16, info.incarnation, true);
  return body;
}
