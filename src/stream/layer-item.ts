// What a layered stream consists of: headers and records of its layers, each with its place.

import type { StreamHeaders } from './flow.js';
import type { LibxlHeader } from './libxl.js';
import type { StreamRecord } from './record.js';
import type { XlHeader } from './xl.js';

export type Layer = 'xl' | 'libxl' | 'libxc';

/** One thing of the stream, with where it stands. */
export type LayeredItem =
  | { readonly layer: 'xl'; readonly kind: 'header'; readonly offset: number; readonly header: XlHeader }
  | {
      readonly layer: 'libxl';
      readonly kind: 'header';
      readonly offset: number;
      readonly header: LibxlHeader;
    }
  | {
      readonly layer: 'libxc';
      readonly kind: 'headers';
      readonly offset: number;
      readonly headers: StreamHeaders;
    }
  | {
      readonly layer: 'libxl' | 'libxc';
      readonly kind: 'record';
      readonly offset: number;
      readonly record: StreamRecord;
    };
