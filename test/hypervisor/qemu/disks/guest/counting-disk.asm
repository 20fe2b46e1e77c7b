; A disk that boots: it counts in its own second sector, and tells the serial port each number once it is written there.
;
;   nasm -f bin -o counting-disk.bin counting-disk.asm

bits 16
org 0x7c00

BUFFER equ 0x8000               ; the sector, whose first 4 octets are the count
COM1 equ 0x3f8
TICKS equ 2                     ; of 55 ms, between two

        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
        sti
        mov ah, 0x42            ; read
        call transfer
next:   inc dword [BUFFER]
        mov ah, 0x43            ; write
        call transfer
        mov si, before
        call say
        mov eax, [BUFFER]
        call number
        mov si, after
        call say
        mov cx, TICKS
idle:   hlt
        loop idle
        jmp next

; AH: what the BIOS is to do with the sector
transfer:
        mov si, packet
        mov dl, [drive]
        xor al, al
        int 0x13
        jnc done
        mov si, failed
        call say
stop:   hlt
        jmp stop

; EAX, in decimal
number: xor edx, edx
        mov ebx, 10
        div ebx
        push dx
        test eax, eax
        jz digit
        call number
digit:  pop ax
        add al, '0'
put:    push ax
        mov dx, COM1 + 5
full:   in al, dx
        test al, 0x20
        jz full
        pop ax
        mov dx, COM1
        out dx, al
done:   ret

; the text at SI, up to a zero
say:    lodsb
        test al, al
        jz done
        call put
        jmp say

before: db 'tick ', 0
after:  db ' ok', 10, 0
failed: db 'the disk fails', 10, 0
drive:  db 0
align 4
packet: db 16, 0
        dw 1, BUFFER, 0
        dq 1

times 510 - ($ - $$) db 0
        dw 0xaa55
